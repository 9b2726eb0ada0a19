"""The Open Inference Protocol over ASGI: what the clients' libraries never send, and hostile bodies."""

import base64
import gzip
import json
import math
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from onnx import TensorProto

from service.api.v2.routes import NOT_SUPPORTED
from service.app import create_app
from service.model_files.repository import VersionState
from service.settings import Settings
from tests.service.conftest import image
from tests.support.model_files.graph_files import graph_file, write_graph_file
from tests.support.model_files.tiny_model import SIDE, write_tiny_model

pytestmark = pytest.mark.anyio

INFER = "/v2/models/tiny/infer"
RAW = {"inference-header-content-length": "0"}
LIMIT = 100_000
PIXELS = np.zeros((1, SIDE, SIDE, 3), np.uint8)


@pytest.fixture
async def app(tmp_path: Path, model_file: bytes) -> AsyncIterator[FastAPI]:
    write_tiny_model(tmp_path, content=model_file)
    write_graph_file(tmp_path, "minus", graph_file())
    write_graph_file(tmp_path, "open", graph_file(shape=("N", "M")))
    write_graph_file(tmp_path, "whole", graph_file(TensorProto.INT64, (2, 2)))
    app = create_app(
        Settings(
            models=tmp_path, default_model="tiny", max_image_bytes=50_000, max_request_bytes=LIMIT, engine_threads=1
        )
    )
    async with app.router.lifespan_context(app):
        yield app


def question(**further: Any) -> dict[str, Any]:
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(PIXELS.shape), "data": PIXELS.ravel().tolist()}
    return {"inputs": [tensor], **further}


def assert_error(answer: httpx.Response, status: int, words: str = "") -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
async def test_the_server_describes_itself_with_and_without_a_slash(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert answer.json()["name"] == "resnet-service"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
async def test_an_image_by_itself_is_a_request(client: httpx.AsyncClient, image_format: str) -> None:
    answer = await client.post(INFER, content=image((255, 0, 0), image_format), headers=RAW)
    head = json.loads(answer.content[: int(answer.headers["inference-header-content-length"])])
    sizes = [output["parameters"]["binary_data_size"] for output in head["outputs"]]
    assert [output["name"] for output in head["outputs"]] == ["probabilities", "embedding", "top_indices", "class_maps"]
    assert sum(sizes) + int(answer.headers["inference-header-content-length"]) == len(answer.content)
    probabilities = np.frombuffer(answer.content[-sum(sizes) :][: sizes[0]], np.float32)
    assert probabilities.argmax() == 1


async def test_raw_pixels_alone_are_a_request_if_their_size_is_the_model_s(client: httpx.AsyncClient) -> None:
    assert (await client.post(INFER, content=PIXELS.tobytes(), headers=RAW)).status_code == 200
    assert (await client.post("/v2/models/minus/infer", content=bytes(12), headers=RAW)).status_code == 200
    assert (await client.post("/v2/models/whole/infer", content=bytes(32), headers=RAW)).status_code == 200
    for path, body in ((INFER, b""), (INFER, PIXELS.tobytes()[1:]), ("/v2/models/minus/infer", image((1, 2, 3)))):
        assert_error(await client.post(path, content=body, headers=RAW), 400, "must be")
    assert_error(await client.post("/v2/models/open/infer", content=bytes(12), headers=RAW), 400, "needs a request")


async def test_images_in_json_are_base64(client: httpx.AsyncClient, red: bytes) -> None:
    text = base64.b64encode(red).decode()
    tensor = {"name": "images", "datatype": "BYTES", "shape": [2], "data": [text, text]}
    outputs = [{"name": "top_indices"}]
    answer = await client.post(INFER, json={"inputs": [tensor], "outputs": outputs})
    assert answer.json()["outputs"][0]["shape"] == [2, 5]
    assert answer.json()["outputs"][0]["data"][::5] == [1, 1]


@pytest.mark.parametrize("content_type", ["text/html", "multipart/form-data; boundary=x", "image/jpeg", None])
async def test_no_content_type_is_refused(client: httpx.AsyncClient, content_type: str | None) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    answer = await client.post(INFER, content=json.dumps(question()), headers=headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"


async def test_the_request_s_id_comes_back_and_only_if_there_was_one(client: httpx.AsyncClient) -> None:
    assert (await client.post(INFER, json=question(id="é 7"))).json()["id"] == "é 7"
    assert "id" not in (await client.post(INFER, json=question())).json()


async def test_a_version_in_the_path_has_to_be_the_one_that_serves(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v2/models/tiny/versions/1/infer", json=question())).json()["model_version"] == "1"
    for version in ("2", "01", "latest", "-1"):
        assert_error(await client.post(f"/v2/models/tiny/versions/{version}/infer", json=question()), 404)
        assert_error(await client.get(f"/v2/models/tiny/versions/{version}"), 404)


async def test_versions_that_serve_together_are_listed_and_counted_separately(
    tmp_path: Path, model_file: bytes
) -> None:
    for version in ("1", "2"):
        write_tiny_model(tmp_path, version=version, content=model_file)
    app = create_app(Settings(models=tmp_path, latest_versions=2, engine_threads=1))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client,
    ):
        served = (await client.get("/v2/models/tiny")).json()["versions"]
        assert served[-1] == "2"
        for count, version in enumerate(served, start=1):
            for _ in range(count):
                await client.post(f"/v2/models/tiny/versions/{version}/infer", json=question())
        stats = (await client.get("/v2/models/stats")).json()["model_stats"]
        assert [(entry["version"], entry["inference_count"]) for entry in stats] == [
            (version, count) for count, version in enumerate(served, start=1)
        ]
        assert (await client.get("/v2/models/tiny/stats")).json()["model_stats"] == stats
        of_one = (await client.get("/v2/models/tiny/versions/2/stats")).json()["model_stats"]
        assert [entry["version"] for entry in of_one] == ["2"]
        config = (await client.get("/v2/models/tiny/config")).json()
        assert config["version_policy"] == {"latest": {"num_versions": 2}}


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP"])
async def test_a_packed_body_is_unpacked_and_a_bomb_is_refused(client: httpx.AsyncClient, encoding: str) -> None:
    def pack(content: bytes) -> bytes:
        return zlib.compress(content) if encoding == "deflate" else gzip.compress(content)

    headers = {"content-encoding": encoding}
    body = json.dumps(question()).encode()
    assert (await client.post(INFER, content=pack(body), headers=headers)).status_code == 200
    assert_error(await client.post(INFER, content=pack(bytes(LIMIT + 1)), headers=headers), 413, "has more than")
    assert_error(await client.post(INFER, content=pack(bytes(10**7)), headers=headers), 413)
    assert_error(await client.post(INFER, content=pack(body)[:-9], headers=headers), 400, "truncated")
    assert_error(await client.post(INFER, content=body, headers=headers), 400)


async def test_unknown_encodings_and_bodies_that_are_too_large_are_refused(client: httpx.AsyncClient) -> None:
    assert_error(await client.post(INFER, content=b"x", headers={"content-encoding": "br"}), 400, "gzip")
    assert_error(await client.post(INFER, content=bytes(LIMIT + 1)), 413, "100,000 bytes")
    large = struct.pack("<I", 60_000) + image((1, 2, 3)).ljust(60_000, b"\0")
    head = {"name": "images", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(large)}}
    text = json.dumps({"inputs": [head]}).encode()
    answer = await client.post(INFER, content=text + large, headers={"inference-header-content-length": str(len(text))})
    assert_error(answer, 413, "An image may have at most 50,000 bytes")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": [1, -1, 3]}, "`shape`"),
        ({"shape": [2**62, 2**62, 8, 3]}, "takes UINT8"),
        ({"shape": [2**62, SIDE, SIDE, 3]}, "numbers, and has 192"),
        ({"shape": [0, SIDE, SIDE, 3], "data": []}, "1 to"),
        ({"datatype": "FP32"}, "takes UINT8"),
        ({"datatype": "INT8", "data": [200] * 192}, "takes UINT8"),
        ({"datatype": "FP16", "data": [1e6] * 192}, "takes UINT8"),
        ({"datatype": "FP32", "data": [1] * 7}, "takes UINT8"),
        ({"datatype": "BYTES", "shape": [2, 2], "data": ["a"] * 4}, "or BYTES [-1]"),
        ({"datatype": "STRING"}, "`datatype`"),
        ({"name": "x" * 2000}, "at most 1024 characters"),
        ({"data": [256] * 192}, "cannot hold"),
        ({"data": [1] * 191}, "takes 192 numbers"),
        ({"data": ["1"] * 192}, "does not fit"),
        ({"parameters": {"binary_data_size": 192}}, "either"),
        ({"parameters": {"shared_memory_region": "r"}, "data": None}, "Shared memory"),
    ],
)
async def test_a_tensor_that_does_not_fit_is_refused(
    client: httpx.AsyncClient, change: dict[str, Any], words: str
) -> None:
    document = question()
    document["inputs"][0] |= change
    assert_error(await client.post(INFER, json=document), 400, words)


async def test_raw_tensors_of_a_wrong_type_are_refused_with_the_right_one_at_any_size(
    client: httpx.AsyncClient,
) -> None:
    for datatype, size in (("FP32", 192), ("FP32", 768), ("FP16", 192), ("INT64", 1)):
        document = question()
        document["inputs"][0] |= {"datatype": datatype, "parameters": {"binary_data_size": size}}
        del document["inputs"][0]["data"]
        text = json.dumps(document).encode()
        headers = {"inference-header-content-length": str(len(text))}
        assert_error(await client.post(INFER, content=text + bytes(size), headers=headers), 400, "takes UINT8")


@pytest.mark.parametrize(
    ("further", "words"),
    [
        ({"outputs": [{"name": "logits"}]}, "no output `logits`"),
        ({"outputs": [{"name": "embedding"}, {"name": "embedding"}]}, "twice"),
        ({"outputs": [{"name": "embedding", "parameters": {"classification": 0}}]}, "above 0"),
        ({"outputs": [{"name": "embedding", "parameters": {"shared_memory_region": "r"}}]}, "Shared memory"),
        ({"parameters": {"timeout": -1}}, "microseconds"),
        ({"parameters": {"timeout": "soon"}}, "microseconds"),
        ({"id": 7}, "`id`"),
    ],
)
async def test_other_parts_that_do_not_fit_are_refused(
    client: httpx.AsyncClient, further: dict[str, Any], words: str
) -> None:
    assert_error(await client.post(INFER, json=question(**further)), 400, words)


@pytest.mark.parametrize("length", ["-1", "1e3", "", "9" * 30, "5000000000", "7"])
async def test_a_header_length_that_does_not_fit_is_refused(client: httpx.AsyncClient, length: str) -> None:
    headers = {"inference-header-content-length": length}
    assert_error(await client.post(INFER, content=json.dumps(question()), headers=headers), 400)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models", 404),
        ("GET", "/v2/models/nobody/config", 404),
        ("POST", "/v2/models/nobody/infer", 404),
        ("GET", INFER, 405),
        ("POST", "/v2/health/live", 405),
        ("GET", "/v2/repository/index", 405),
        ("POST", "/v2/repository/models/tiny/load", 403),
        ("POST", "/v2/repository/models/tiny/unload", 403),
        ("GET", "/v2/logging", 404),
        ("POST", "/v2/systemsharedmemory/region/a/register", 404),
    ],
)
async def test_every_failure_is_an_error_in_json(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    answer = await client.request(method, path, content=b"{}" if method == "POST" else None)
    assert_error(answer, status)
    assert ("allow" in answer.headers) == (status == 405)


async def test_a_server_that_starts_or_stops_says_so_in_json(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.components.readiness, "_state", "starting")
    for answer in (await client.get("/v2/health/ready"), await client.post(INFER, json=question())):
        assert_error(answer, 503)
        assert int(answer.headers["retry-after"]) >= 1
    app.state.components.readiness.start_draining()
    assert (await client.get("/v2/health/ready")).status_code == 503
    assert (await client.get("/v2/models/tiny/ready")).status_code == 503
    assert (await client.get("/v2/health/live")).json() == {"live": True}


async def test_the_best_classes_of_other_outputs_have_no_labels(client: httpx.AsyncClient) -> None:
    wanted = [{"name": name, "parameters": {"classification": 2}} for name in ("embedding", "top_indices")]
    embedding, top = (await client.post(INFER, json=question(outputs=wanted))).json()["outputs"]
    assert embedding["data"] == ["0.000000:0", "0.000000:1"]
    assert all(":" in text and "." not in text for text in top["data"])
    assert (top["datatype"], top["shape"]) == ("BYTES", [1, 2])


async def test_a_graph_without_a_batch_answers_the_whole_tensor(client: httpx.AsyncClient) -> None:
    tensor = {"name": "x", "datatype": "INT64", "shape": [2, 2], "data": [[1, 2], [3, -4]]}
    wanted = [{"name": "y"}, {"name": "z", "parameters": {"classification": 1}}]
    answer = await client.post("/v2/models/whole/infer", json={"inputs": [tensor], "outputs": wanted})
    whole, best = answer.json()["outputs"]
    assert (whole["shape"], whole["data"]) == ([2, 2], [-1, -2, -3, 4])
    assert (best["shape"], best["data"]) == ([1], ["4:3"])


async def test_the_index_lists_only_ready_models_on_request(app: FastAPI, client: httpx.AsyncClient) -> None:
    registry = app.state.components.registry
    registry.states = (*registry.states, VersionState("tiny", "2", "UNAVAILABLE", "it is cut off"))
    whole = (await client.post("/v2/repository/index")).json()
    assert whole[-1] == {"name": "tiny", "version": "2", "state": "UNAVAILABLE", "reason": "it is cut off"}
    for body in (b"{}", b'{"ready": false}', b"\n"):
        assert (await client.post("/v2/repository/index", content=body)).json() == whole
    assert (await client.post("/v2/repository/index", json={"ready": True})).json() == whole[:-1]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"ready": 1}'])
async def test_an_index_asked_for_in_other_words_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    assert_error(await client.post("/v2/repository/index", content=body), 400, "ready")


async def test_a_question_for_the_index_is_short(client: httpx.AsyncClient) -> None:
    assert_error(await client.post("/v2/repository/index", content=b" " * 70_000), 413)


async def test_answers_are_counted_by_the_template_of_their_path(app: FastAPI, client: httpx.AsyncClient) -> None:
    for number in range(5):
        await client.post(f"/v2/models/made-up-{number}/infer", json=question())
    counted = {
        key: numbers for key, numbers in app.state.components.metrics.snapshot()["counters"].items() if "/v2" in key
    }
    assert counted == {"resnet_requests\n/v2/models/{model}/infer\nPOST\n404": [5]}


async def test_the_document_has_every_route(app: FastAPI, client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    paths = {path for route in app.routes if str(path := getattr(route, "path", "")).startswith("/v2")}
    assert paths - {"/v2/", *NOT_SUPPORTED} == {path for path in document["paths"] if path.startswith("/v2")}
    assert document["paths"][INFER.replace("tiny", "{model}")]["post"]["responses"].keys() >= {"400", "413", "503"}


async def test_the_document_s_example_works(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    operation = document["paths"]["/v2/models/{model}/infer"]["post"]
    example = operation["requestBody"]["content"]["application/json"]["example"]
    answer = (await client.post(INFER, json=example)).json()
    assert answer["outputs"][0]["shape"] == [1, 2]
    assert answer["outputs"][0]["data"][0].endswith(":1:red")
    assert math.isclose(float(answer["outputs"][0]["data"][0].partition(":")[0]), 1, abs_tol=0.5)
