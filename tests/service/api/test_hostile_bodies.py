"""Hostile bodies of the routes for other services' clients: refused within the bounds of the other JSON routes."""

import time
import tracemalloc
from collections.abc import Callable

import httpx
import pytest

from service.api.huggingface import _read_json as read_for_hugging_face
from service.api.openai import _read_request as read_for_openai
from service.errors import BadRequest, TooLarge
from tests.service.api.parsing.test_json_body import _LARGE, HOSTILE, NEST, listed

READERS: dict[str, Callable[[bytes], object]] = {"hugging face": read_for_hugging_face, "openai": read_for_openai}


def of_both(image: bytes) -> bytes:
    """Return a body with this image, for either reader."""
    return b'{"inputs":' + image + b',"input":' + image + b"}"


OF_THESE_ROUTES = {
    "parameters nested a thousand times": lambda: b'{"inputs":"","parameters":{"top_k":' + NEST + b"}}",
    "many parameters": lambda: b'{"inputs":0,"parameters":{' + b'"a":0,' * (_LARGE // 6) + b'"a":0}}',
    "inputs nested a thousand times": lambda: of_both(NEST),
    "objects as images": lambda: of_both(listed(b'{"":0}', _LARGE // 14)),
    "empty strings as images": lambda: of_both(listed(b'""', _LARGE // 6)),
    "65 images": lambda: of_both(listed(b'"AAAA"', 65)),
    "text that is not base64": lambda: of_both(b'"' + b"?" * _LARGE + b'"'),
    "padding only": lambda: of_both(b'"' + b"=" * _LARGE + b'"'),
    "an address": lambda: of_both(b'"http://127.0.0.1:1/a.jpg"'),
    "a long model name": lambda: b'{"inputs":0,"input":0,"model":"' + b"a" * _LARGE + b'"}',
    "large dimensions": lambda: b'{"inputs":0,"input":"","dimensions":' + b"9" * 100_000 + b"}",
    "no object": lambda: b"[" + b"0," * (_LARGE // 2) + b"0]",
    "bytes that are not UTF-8": lambda: of_both(b'"\xff\xfe"'),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", [*HOSTILE, *OF_THESE_ROUTES])
def test_hostile_bodies_are_refused_for_less_than_they_weigh(name: str, reader: str) -> None:
    body = (HOSTILE | OF_THESE_ROUTES)[name]()
    tracemalloc.start()
    began = time.thread_time()
    try:
        with pytest.raises((BadRequest, TooLarge)):
            READERS[reader](body)
        cpu_s, (_, peak) = time.thread_time() - began, tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 3 * len(body) + 100_000
    assert cpu_s < 1  # as for the other JSON routes


BODIES = {
    "a zip bomb's head": b"\x1f\x8b\x08\x00" + bytes(1000),
    "a form that has no end": b"--x\r\nContent-Disposition: form-data; name=data\r\n\r\n" + bytes(5000),
    "a form of many parts": b"--x\r\n\r\n" * 10_000 + b"--x--\r\n",
    "an image that is cut off": b"\xff\xd8\xff\xe0\x00\x10JFIF\x00",
    "nothing": b"",
    "null bytes": bytes(10_000),
    "JSON with a lone surrogate": b'{"inputs":"\\ud800"}',
    "brackets": b"[" * 50_000,
}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["application/json", "image/jpeg", "multipart/form-data; boundary=x"])
@pytest.mark.parametrize("name", BODIES)
async def test_no_route_fails_on_a_hostile_body(client: httpx.AsyncClient, name: str, kind: str) -> None:
    for method, path in (
        ("POST", "/hf/tiny"),
        ("POST", "/predictions/tiny"),
        ("PUT", "/predictions/tiny/1.0"),
        ("POST", "/v1/embeddings"),
    ):
        answer = await client.request(method, path, content=BODIES[name], headers={"content-type": kind})
        assert 400 <= answer.status_code < 500, (path, answer.text)
        assert "Traceback" not in answer.text
