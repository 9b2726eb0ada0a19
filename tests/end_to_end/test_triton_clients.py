"""Triton's own clients, unmodified, against a real server: every call that they have."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from onnx import TensorProto
from tritonclient.utils import InferenceServerException

from tests.service.conftest import image
from tests.support.model_files.graph_files import graph_file, write_graph_file
from tests.support.model_files.tiny_model import LABELS, SIDE, write_tiny_model
from tests.support.servers.served import ROOT, Served, serving, wait_until

SHAPE = [SIDE, SIDE, 3]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, model_file: bytes) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("models")
    write_tiny_model(folder, content=model_file)
    write_graph_file(folder, "minus", graph_file())
    write_graph_file(folder, "minus-half", graph_file(TensorProto.FLOAT16))
    write_graph_file(folder, "minus-fixed", graph_file(shape=(2, 3)))
    write_graph_file(folder, "minus-open", graph_file(shape=("N", "M")))
    with serving(folder, "--default-model", "tiny") as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client:
        yield client


def pixels(count: int = 1, colour: tuple[int, int, int] = (255, 0, 0)) -> NDArray[np.uint8]:
    return np.full((count, *SHAPE), colour, np.uint8)


def sent(data: NDArray[Any], datatype: str, *, name: str = "images", binary: bool = True) -> triton.InferInput:
    tensor = triton.InferInput(name, list(data.shape), datatype)
    tensor.set_data_from_numpy(data, binary_data=binary)
    return tensor


def files(*contents: bytes, columns: bool = False) -> triton.InferInput:
    data = np.array(contents, dtype=object)
    return sent(data.reshape(-1, 1) if columns else data, "BYTES")


def refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(InferenceServerException) as caught:
        call()
    return caught.value.status(), caught.value.message()


def test_health_and_readiness_are_reported(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    assert not client.is_model_ready("nobody")


def test_the_server_the_models_and_the_repository_describe_themselves(client: triton.InferenceServerClient) -> None:
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("tiny", "1")
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, *SHAPE]}]
    assert {output["name"] for output in metadata["outputs"]} >= {"probabilities", "embedding"}
    config = client.get_model_config("tiny")
    assert config["max_batch_size"] > 0
    assert config["input"][0]["dims"] == SHAPE
    fixed = client.get_model_config("minus-fixed")
    assert (fixed["max_batch_size"], fixed["input"][0]["dims"]) == (0, [2, 3])
    index = client.get_model_repository_index()
    assert {"name": "tiny", "version": "1", "state": "READY", "reason": ""} in index
    assert len(index) == 5


@pytest.mark.parametrize("action", ["load_model", "unload_model"])
def test_the_public_port_changes_no_models(client: triton.InferenceServerClient, action: str) -> None:
    status, message = refusal(lambda: getattr(client, action)("tiny"))
    assert status == "403"
    assert "admin port" in message


@pytest.mark.parametrize(
    ("call", "arguments"),
    [
        ("get_trace_settings", ()),
        ("update_trace_settings", ("tiny", {})),
        ("get_log_settings", ()),
        ("update_log_settings", ({},)),
        ("get_system_shared_memory_status", ()),
        ("register_system_shared_memory", ("region", "/key", 10)),
        ("unregister_cuda_shared_memory", ()),
    ],
)
def test_a_missing_model_is_reported_in_words(
    client: triton.InferenceServerClient, call: str, arguments: tuple[Any, ...]
) -> None:
    status, message = refusal(lambda: getattr(client, call)(*arguments))
    assert status == "404"
    assert "shared memory" in message


@pytest.mark.parametrize("binary", [True, False])
def test_raw_and_json_tensors_give_the_same(client: triton.InferenceServerClient, binary: bool) -> None:
    answer = client.infer("tiny", [sent(pixels(3), "UINT8", binary=binary)], request_id="seven")
    assert answer.get_response()["id"] == "seven"
    assert answer.get_response()["model_version"] == "1"
    assert answer.as_numpy("probabilities").shape == (3, len(LABELS))
    assert LABELS[answer.as_numpy("top_indices")[2][0]] == "red"
    assert answer.as_numpy("class_maps").shape == (3, 5, SIDE, SIDE)


def test_raw_and_json_outputs_can_be_mixed_and_come_in_the_requested_order(
    client: triton.InferenceServerClient,
) -> None:
    outputs = [
        triton.InferRequestedOutput("embedding", binary_data=False),
        triton.InferRequestedOutput("probabilities", binary_data=True),
    ]
    answer = client.infer("tiny", [sent(pixels(2), "UINT8")], outputs=outputs)
    embedding, probabilities = answer.get_response()["outputs"]
    assert (embedding["name"], embedding["data"]) == ("embedding", [1, 0, 0, 1, 0, 0])
    assert "data" not in probabilities
    assert answer.as_numpy("probabilities").argmax(axis=1).tolist() == [1, 1]


@pytest.mark.parametrize("columns", [False, True])
def test_encoded_images_are_decoded_as_classify_does(
    served: Served, client: triton.InferenceServerClient, columns: bool
) -> None:
    images = [image((200, 30, 60)), image((0, 90, 250), "PNG"), image((20, 200, 99), "WEBP")]
    answer = client.infer("tiny", [files(*images, columns=columns)]).as_numpy("probabilities")
    for row, content in zip(answer, images, strict=True):
        best = served.ask("POST", "/classify?top_k=8", content)[1]["predictions"]
        alone = [entry["probability"] for entry in sorted(best, key=lambda entry: entry["index"])]
        assert row == pytest.approx(alone, abs=2e-6)  # a batch's last digit is not that of an image alone


@pytest.mark.parametrize("binary", [True, False])
def test_classes_come_as_values_indices_and_labels(client: triton.InferenceServerClient, binary: bool) -> None:
    wanted = triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)
    best = client.infer("tiny", [sent(pixels(2), "UINT8")], outputs=[wanted]).as_numpy("probabilities")
    assert best.shape == (2, 3)
    texts = [text.decode() if isinstance(text, bytes) else text for text in best[0]]
    values, indices, labels = zip(*(text.split(":") for text in texts), strict=True)
    assert labels[0] == "red"
    assert indices[0] == "1"
    assert all(len(value.partition(".")[2]) == 6 for value in values)
    assert list(values) == sorted(values, reverse=True)
    many = triton.InferRequestedOutput("probabilities", class_count=1000)
    assert client.infer("tiny", [sent(pixels(), "UINT8")], outputs=[many]).as_numpy("probabilities").shape == (1, 8)


@pytest.mark.parametrize("request_by", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_by", [None, "gzip", "deflate"])
def test_bodies_may_be_compressed_both_ways(
    client: triton.InferenceServerClient, request_by: str | None, response_by: str | None
) -> None:
    answer = client.infer(
        "tiny",
        [sent(pixels(20), "UINT8")],
        request_compression_algorithm=request_by,
        response_compression_algorithm=response_by,
    )
    assert answer.as_numpy("probabilities").shape == (20, len(LABELS))


def test_a_thousand_tensors_are_answered_each_with_its_own(client: triton.InferenceServerClient) -> None:
    colours = np.random.default_rng(7).integers(0, 2, (1000, 3))
    data = np.repeat((colours * 255).astype(np.uint8), SIDE * SIDE, axis=0).reshape(1000, *SHAPE)
    embedding = client.infer("tiny", [sent(data, "UINT8")]).as_numpy("embedding")
    assert np.array_equal(embedding, colours)


def test_priorities_are_ignored_and_timeouts_are_kept(client: triton.InferenceServerClient) -> None:
    client.infer("tiny", [sent(pixels(), "UINT8")], priority=1, timeout=60_000_000, sequence_id=3)
    status, message = refusal(lambda: client.infer("tiny", [sent(pixels(1000), "UINT8")], timeout=1))
    assert status == "503"
    assert message


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (sent(pixels().astype(np.float32), "FP32"), "takes UINT8"),
        (sent(pixels()[:, 1:], "UINT8"), r"takes UINT8 \[-1, 8, 8, 3\]"),
        (sent(pixels()[0], "UINT8"), r"given UINT8 \[8, 8, 3\]"),
        (sent(pixels()[:0], "UINT8"), "1 to"),
        (sent(pixels(), "UINT8", name="photos"), "`images`, but was given `photos`"),
        (files(b"GIF89a and so on"), "Only JPEG, PNG and WebP"),
        (files(image((1, 2, 3)), image((1, 2, 3))[:300]), "Image 2 of 2"),
    ],
)
def test_what_does_not_fit_is_a_bad_request_in_words(
    client: triton.InferenceServerClient, tensor: triton.InferInput, words: str
) -> None:
    with pytest.raises(InferenceServerException, match=words) as caught:
        client.infer("tiny", [tensor])
    assert caught.value.status() == "400"


def test_missing_models_and_outputs_are_reported(client: triton.InferenceServerClient) -> None:
    assert refusal(lambda: client.infer("nobody", [sent(pixels(), "UINT8")]))[0] == "404"
    assert refusal(lambda: client.infer("tiny", [sent(pixels(), "UINT8")], model_version="2"))[0] == "404"
    wanted = [triton.InferRequestedOutput("logits")]
    status, message = refusal(lambda: client.infer("tiny", [sent(pixels(), "UINT8")], outputs=wanted))
    assert status == "400"
    assert "`logits`" in message
    assert "`probabilities`" in message


@pytest.mark.parametrize("binary", [True, False])
def test_a_model_without_a_card_takes_what_its_graph_says(client: triton.InferenceServerClient, binary: bool) -> None:
    data = np.arange(12, dtype=np.float32).reshape(4, 3)
    answer = client.infer("minus", [sent(data, "FP32", name="x", binary=binary)])
    assert np.array_equal(answer.as_numpy("y"), -data)
    assert np.array_equal(answer.as_numpy("z"), -data)
    status, message = refusal(lambda: client.infer("minus", [sent(data.astype(np.float16), "FP16", name="x")]))
    assert (status, "takes FP32" in message) == ("400", True)


def test_half_precision_goes_in_and_comes_out(client: triton.InferenceServerClient) -> None:
    data = np.array([[1, 2.5, -3]], np.float16)
    answer = client.infer("minus-half", [sent(data, "FP16", name="x")]).as_numpy("y")
    assert answer.dtype == np.float16
    assert np.array_equal(answer, -data)


def test_a_fixed_first_axis_is_no_batch_and_open_axes_take_any_length(client: triton.InferenceServerClient) -> None:
    data = np.ones((2, 3), np.float32)
    assert client.infer("minus-fixed", [sent(data, "FP32", name="x")]).as_numpy("y").shape == (2, 3)
    assert "[2, 3]" in refusal(lambda: client.infer("minus-fixed", [sent(data[:1], "FP32", name="x")]))[1]
    wide = np.ones((5, 7), np.float32)
    assert client.infer("minus-open", [sent(wide, "FP32", name="x")]).as_numpy("y").shape == (5, 7)


def test_classify_says_of_a_model_without_a_card_what_it_takes(served: Served, red: bytes) -> None:
    status, document = served.ask("POST", "/classify?model=minus", red)
    assert (status, document["code"]) == (400, "no_model_card")
    assert "/v2/models/minus/infer" in document["detail"]


def test_statistics_count_rows_executions_and_failures(client: triton.InferenceServerClient) -> None:
    def read(model: str = "tiny") -> Any:
        return next(entry for entry in client.get_inference_statistics(model)["model_stats"] if entry["name"] == "tiny")

    before = read()
    client.infer("tiny", [sent(pixels(10), "UINT8")])
    refusal(lambda: client.infer("tiny", [sent(pixels().astype(np.float32), "FP32")]))
    after = read("")
    assert after["inference_count"] - before["inference_count"] == 10
    assert 1 <= after["execution_count"] - before["execution_count"] <= 10
    for name, count in {"success": 1, "fail": 1, "queue": 1, "compute_infer": 1}.items():
        assert after["inference_stats"][name]["count"] - before["inference_stats"][name]["count"] == count
    spent = {name: entry["ns"] for name, entry in after["inference_stats"].items()}
    assert spent["compute_infer"] > 0
    assert spent["queue"] + spent["compute_input"] + spent["compute_infer"] <= spent["success"]
    assert after["last_inference"] >= before["last_inference"] > 0
    assert sum(entry["compute_infer"]["count"] for entry in after["batch_stats"]) == after["execution_count"]
    assert "version" in client.get_inference_statistics("tiny", "1")["model_stats"][0]


def test_the_asynchronous_client_does_all_that_too(served: Served) -> None:
    asyncio.run(_use_everything(served))


async def _use_everything(served: Served) -> None:
    async with triton_aio.InferenceServerClient(f"127.0.0.1:{served.port}") as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("tiny", "1")
        assert not await client.is_model_ready("nobody")
        assert (await client.get_server_metadata())["name"]
        assert (await client.get_model_metadata("tiny"))["name"] == "tiny"
        assert (await client.get_model_config("tiny"))["name"] == "tiny"
        assert len(await client.get_model_repository_index()) == 5
        assert (await client.get_inference_statistics())["model_stats"]
        with pytest.raises(InferenceServerException, match="admin port"):
            await client.load_model("tiny")
        with pytest.raises(InferenceServerException, match="takes UINT8"):
            await client.infer("tiny", [sent(pixels().astype(np.float32), "FP32")])
        for compression in (None, "gzip", "deflate"):
            answers = await asyncio.gather(
                *(
                    client.infer(
                        "tiny",
                        [sent(pixels(count), "UINT8", binary=count % 2 == 0)],
                        request_id=str(count),
                        request_compression_algorithm=compression,
                        response_compression_algorithm=compression,
                    )
                    for count in range(1, 9)
                )
            )
            for count, answer in enumerate(answers, start=1):
                assert answer.get_response()["id"] == str(count)
                assert answer.as_numpy("probabilities").argmax(axis=1).tolist() == [1] * count


def test_statistics_are_the_sum_over_all_processes(models: Path) -> None:
    with serving(models, "--processes", 2) as served:
        for _ in range(20):
            with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client:
                client.infer("tiny", [sent(pixels(3), "UINT8")])
        for _ in range(4):  # whichever process answers
            with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client:
                (entry,) = client.get_inference_statistics("tiny")["model_stats"]
            assert entry["inference_count"] == 60
            assert entry["inference_stats"]["success"]["count"] == 20
            assert entry["last_inference"] > 0


# A model that takes 20 ms an image and says in the log how many it was given.
SLOW = """
import sys, time
from service.inference.classifier import Classifier

answer_batch = Classifier.answer_batch

def slow(self, images, **options):
    time.sleep(0.02 * len(images))
    print("ran", len(images), file=sys.stderr, flush=True)
    return answer_batch(self, images, **options)

Classifier.answer_batch = slow
"""


def request_of(rows: int) -> bytes:
    """A whole request, with raw tensors."""
    size = rows * SIDE * SIDE * 3
    tensor = {"name": "images", "datatype": "UINT8", "shape": [rows, *SHAPE], "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [tensor]}).encode()
    head = f"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(text) + size}\r\n"
    return f"{head}Inference-Header-Content-Length: {len(text)}\r\n\r\n".encode() + text + bytes(size)


def test_a_large_request_lets_others_in_and_frees_its_rows_when_its_client_leaves(models: Path, red: bytes) -> None:
    with serving(models, "--processes", 1, "--engine-threads", 1, "--max-batch", 2, patch=SLOW) as served:
        with served.raw() as connection:
            connection.sendall(request_of(1000))
            wait_until(lambda: served.sample("resnet_requests_in_flight") == 1)
            assert served.ask("POST", "/classify", red)[0] == 200
            assert served.sample("resnet_requests_in_flight") == 1  # it still waits for its rows
        wait_until(lambda: served.sample("resnet_requests_in_flight") == 0)
        wait_until(lambda: served.sample("resnet_queue_depth") == 0)
    assert sum(int(line.split()[1]) for line in served.log if line.startswith("ran")) < 500


@pytest.mark.skipif(not (ROOT / "models" / "everyday-resnet18-int8").exists(), reason="the shipped model is not there")
def test_the_documented_script_gets_the_answers_of_classify(tmp_path: Path, red: bytes) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "open-inference.md").read_text(), re.DOTALL)
    script, file = tmp_path / "script.py", tmp_path / "red.jpg"
    script.write_text(next(block for block in blocks if "tritonclient" in block))
    file.write_bytes(red)
    with serving(ROOT / "models") as served:
        command = [sys.executable, script, f"127.0.0.1:{served.port}", file]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        best = served.ask("POST", "/classify?top_k=3", red)[1]["predictions"]
    found = re.findall(r"[\d.e-]+:(\d+):(.+?)(?=\s+[\d.e-]+:\d+:|\s*$)", said)
    assert found == [(str(one["index"]), one["label"]) for one in best]


@pytest.mark.long
@pytest.mark.skipif(shutil.which("perf_analyzer") is None, reason="perf_analyzer is not installed")
@pytest.mark.parametrize("options", [[], ["-b", "8", "-a"], ["--input-tensor-format", "json"]])
def test_perf_analyzer_measures_the_server(served: Served, options: list[str]) -> None:
    command = ["perf_analyzer", "-m", "tiny", "-u", f"127.0.0.1:{served.port}", "-i", "http", "-s", "99", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    if done.returncode and "GLIBC" in done.stderr:
        pytest.skip("perf_analyzer needs a newer C library than this system's")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Execution count: [1-9]", done.stdout)
