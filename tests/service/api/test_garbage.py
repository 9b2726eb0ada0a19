"""What a request leaves behind: nothing that only a search for garbage finds.

Such a search takes milliseconds of a busy event loop; objects that hold each other until then fill the caches, too.
"""

import base64
import gc
import json

import pytest
from fastapi import FastAPI

from tests.service.conftest import image
from tests.service.http_server.test_connection import connected, next_answer

pytestmark = pytest.mark.anyio
REQUESTS = 40
BOUNDARY = b"boundary-7d1c"


def post(path: str, body: bytes, content_type: bytes = b"image/jpeg", headers: bytes = b"") -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n"
    return head % (path.encode(), content_type, len(body), headers) + body


def form(path: str, content: bytes) -> bytes:
    body = b'--%b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n--%b--\r\n'
    return post(path, body % (BOUNDARY, content, BOUNDARY), b"multipart/form-data; boundary=" + BOUNDARY)


TENSOR = {"inputs": [{"name": "images", "shape": [1, 8, 8, 3], "datatype": "UINT8", "data": [1] * 192}]}
WRONG_TYPE = json.dumps(TENSOR).replace("UINT8", "FP32").encode()
GOOD = image((255, 0, 0))
BROKEN = GOOD[:300]
INPUTS = json.dumps({"inputs": base64.b64encode(GOOD).decode()}).encode()
KINDS = {
    "an image": (post("/classify", GOOD), 200),
    "a form": (form("/classify", GOOD), 200),
    "the liveness": (b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    "no image": (post("/classify", b"text"), 415),
    "a broken image": (post("/classify", BROKEN), 422),
    "a path that is not there": (b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n", 404),
    "a limit that is none": (post("/classify", GOOD, headers=b"X-Request-Timeout-Ms: x\r\n"), 400),
    "a tensor": (post("/v2/models/tiny/infer", json.dumps(TENSOR).encode(), b"application/json"), 200),
    "a batch": (form("/classify/batch", GOOD), 200),
    "a batch with a broken image": (form("/classify/batch", BROKEN), 200),
    "a tensor of the wrong type": (post("/v2/models/tiny/infer", WRONG_TYPE, b"application/json"), 400),
    "an embedding": (post("/embed", GOOD), 200),
    "an image of Hugging Face's client": (post("/hf/tiny", INPUTS, b"application/json"), 200),
    "an image of TorchServe's client": (post("/predictions/tiny", GOOD), 200),
    "an embedding of OpenAI's client": (post("/v1/embeddings", INPUTS.replace(b"inputs", b"input")), 200),
    "an explanation of a broken image": (post("/explain", BROKEN), 422),
    "too much": (post("/classify", b"\xff\xd8\xff" + bytes(300_000)), 413),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_request_leaves_nothing_that_holds_itself(app: FastAPI, kind: str) -> None:
    request, status = KINDS[kind]
    async with connected(app) as (reader, writer):

        async def ask(count: int) -> None:
            for _ in range(count):
                writer.write(request)
                answer = await next_answer(reader)
                assert answer[0] == status, answer

        await ask(5)
        gc.collect()
        gc.disable()
        try:
            await ask(REQUESTS)
            found = gc.collect()
        finally:
            gc.enable()
    assert found < REQUESTS, f"{found / REQUESTS:.1f} objects a request"
