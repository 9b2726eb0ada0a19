"""Every JSON answer ends with one line end, and lengths are right with it."""

import json

import httpx
import numpy as np
import pytest

from service.http_server.early_errors import BAD_HTTP

pytestmark = pytest.mark.anyio


def assert_ends(content: bytes) -> None:
    assert content.endswith(b"}\n") or content.endswith(b"]\n")
    assert not content.endswith(b"\n\n")
    json.loads(content)


READ = [
    *("/health/live", "/health/ready", "/models", "/models/tiny", "/models/tiny/versions/1", "/openapi.json"),
    *(
        "/nowhere",
        "/classify",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/tiny",
        "/v2/models/tiny/ready",
    ),
    *("/v2/models/tiny/config", "/v2/models/tiny/stats", "/v2/models/stats", "/v2/models/other", "/v2/nowhere"),
    *("/ping", "/v1/models", "/v1/models/tiny", "/v1/models/other", "/hf/tiny", "/predictions/tiny"),
]


@pytest.mark.parametrize("path", READ)
async def test_what_is_read_ends_with_a_line_end(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert_ends(answer.content)
    assert int(answer.headers["content-length"]) == len(answer.content)
    if answer.status_code == 200 and "stats" not in path:
        head = await client.head(path)
        assert (head.headers["content-length"], head.content) == (answer.headers["content-length"], b"")


@pytest.mark.parametrize(
    "path",
    ["/classify", "/classify/batch", "/explain", "/embed", "/hf/tiny", "/predictions/tiny", "/v2/repository/index"],
)
async def test_what_is_sent_is_answered_with_a_line_end(client: httpx.AsyncClient, red: bytes, path: str) -> None:
    files = None if path.startswith("/v2") else {"file": red}
    answer = await client.post(path, files=files)
    assert answer.status_code == 200
    assert_ends(answer.content)
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert_ends((await client.post(path, content=b"x")).content)


async def test_tensors_in_json_end_with_a_line_end_packed_or_not(client: httpx.AsyncClient) -> None:
    shape = (await client.get("/v2/models/tiny")).json()["inputs"][0]["shape"]
    pixels = np.zeros([max(1, axis) for axis in shape], np.uint8)
    tensor = {"name": "images", "datatype": "UINT8", "shape": pixels.shape, "data": pixels.ravel().tolist()}
    for encoding in ("identity", "gzip"):
        answer = await client.post(
            "/v2/models/tiny/infer", json={"inputs": [tensor]}, headers={"accept-encoding": encoding}
        )
        assert answer.status_code == 200, answer.text
        assert_ends(answer.content)


async def test_json_before_raw_tensors_is_as_long_as_its_header_says(client: httpx.AsyncClient, red: bytes) -> None:
    answer = await client.post("/v2/models/tiny/infer", content=red, headers={"inference-header-content-length": "0"})
    assert answer.status_code == 200
    size = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.content[:size])["outputs"]
    assert answer.content[:size].endswith(b"}")
    assert len(answer.content) - size == sum(output["parameters"]["binary_data_size"] for output in outputs)


@pytest.mark.parametrize("path", ["/classify", "/v2/models/tiny/infer", "/hf/tiny", "/ping", "/v1/embeddings"])
async def test_what_the_connection_refuses_ends_with_a_line_end(path: str) -> None:
    head, _, body = BAD_HTTP.answer(path, b"id").partition(b"\r\n\r\n")
    assert_ends(body)
    assert b"content-length: %d\r\n" % len(body) in head
