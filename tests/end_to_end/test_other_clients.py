"""The clients of Hugging Face and OpenAI, unmodified, against a real server. Those that are not installed are skipped.

Versions that passed: huggingface_hub 2.4.0, openai 3.57.0, @huggingface/inference 4.13.30. The npm package is found by
NODE_PATH: `npm install --prefix FOLDER @huggingface/inference`, then `NODE_PATH=FOLDER/node_modules pytest …`.
"""

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import image
from tests.support.servers.served import Served, serving

KEY = "key-of-a-test"
# The first request of each path is refused as if too much were waiting.
BUSY_AT_FIRST = """
from service.errors import Overloaded
from service.http.admission import Admission

admit, seen = Admission._admit, set()

def refuse_first(self, method, exchange, route):
    admit(self, method, exchange, route)
    if method == "POST" and route not in seen:
        seen.add(route)
        raise Overloaded("Too many images are waiting.", retry_after_s=1)

Admission._admit = refuse_first
"""
SCRIPT = """
const { InferenceClient } = require("@huggingface/inference");
const { readFileSync } = require("fs");
const [address, key, file] = process.argv.slice(1);
const client = new InferenceClient(key, { endpointUrl: address });
const data = new Blob([readFileSync(file)], { type: "image/jpeg" });
client.imageClassification({ data }).then(
  (answer) => console.log(JSON.stringify(answer)),
  (error) => console.log(JSON.stringify({ error: String(error.message) })),
);
"""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys"
    path.write_text(f"test {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    return path


@pytest.fixture(scope="module")
def served(models: Path, keys: Path) -> Iterator[Served]:
    with serving(models, "--processes", 1, "--api-keys-file", keys) as served:
        yield served


def test_hugging_face_s_client_classifies(served: Served, red: bytes, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    file = tmp_path / "red.jpg"
    file.write_bytes(red)
    client = hub.InferenceClient(model=f"http://127.0.0.1:{served.port}/hf/tiny", token=KEY)
    for given in (red, file, str(file)):
        answer = client.image_classification(given)
        assert (answer[0].label, len(answer)) == ("red", 5)
        assert answer[0].score == pytest.approx(0.946464)
    best = client.image_classification(red, top_k=2, function_to_apply="softmax")
    assert [each.label for each in best] == ["red", "black"]


def test_hugging_face_s_client_shows_the_error(served: Served, red: bytes) -> None:
    hub = pytest.importorskip("huggingface_hub")
    address = f"http://127.0.0.1:{served.port}/hf/"
    for name, token, content, words in (
        ("nobody", KEY, red, "choose one of: tiny"),
        ("tiny", KEY, b"GIF89a", "this is a GIF file"),
        ("tiny", "wrong", red, "A valid API key is required"),
    ):
        client = hub.InferenceClient(model=address + name, token=token)
        with pytest.raises(hub.errors.HfHubHTTPError, match=words):
            client.image_classification(content)


def answer_of_node(served: Served, key: str, file: Path) -> Any:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    found = subprocess.run([node, "-e", "require('@huggingface/inference')"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip("@huggingface/inference is not in NODE_PATH")
    command = [node, "-e", SCRIPT, f"http://127.0.0.1:{served.port}/hf/tiny", key, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(done.stdout)


def test_hugging_face_s_client_in_javascript_classifies(served: Served, red: bytes, tmp_path: Path) -> None:
    file = tmp_path / "red.jpg"
    file.write_bytes(red)
    answer = answer_of_node(served, KEY, file)
    assert (answer[0]["label"], len(answer)) == ("red", 5)
    assert "error" in answer_of_node(served, "wrong", file)


def data_url(content: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"


def test_openai_s_client_embeds(served: Served, red: bytes) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key=KEY) as client:
        assert [model.id for model in client.models.list()] == ["tiny"]
        assert client.models.retrieve("tiny").owned_by == "resnet-service"
        blue = image((0, 0, 255))
        for options in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
            answer = client.embeddings.create(model="tiny", input=[data_url(red), data_url(blue)], **options)
            assert [entry.index for entry in answer.data] == [0, 1]
            if "base64" not in options.values():
                assert answer.data[0].embedding == pytest.approx([1, 0, 0], abs=0.02)
                assert answer.data[1].embedding == pytest.approx([0, 0, 1], abs=0.02)


def test_openai_s_client_shows_the_error(served: Served, red: bytes) -> None:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key=KEY) as client:
        with pytest.raises(openai.NotFoundError, match="choose one of: tiny") as caught:
            client.embeddings.create(model="nobody", input=data_url(red))
        assert caught.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError, match="must be an image"):
            client.embeddings.create(model="tiny", input="a red car")
        with pytest.raises(openai.AuthenticationError, match="A valid API key is required"):
            client.with_options(api_key="wrong").models.list()


def test_openai_s_client_retries_503(models: Path, red: bytes) -> None:
    openai = pytest.importorskip("openai")
    with (
        serving(models, "--processes", 1, patch=BUSY_AT_FIRST) as served,
        openai.OpenAI(base_url=f"http://127.0.0.1:{served.port}/v1", api_key="none") as client,
    ):
        answer = client.embeddings.create(model="tiny", input=data_url(red))
        assert answer.data[0].embedding == pytest.approx([1, 0, 0], abs=0.02)
        requests = served.ask_admin("GET", "/metrics")[1]
        assert 'resnet_requests_total{method="POST",route="/v1/embeddings",status="503"} 1.0' in requests
