"""The wire below HTTP: heads that are too long, bytes that are no request, and answers that keep their order."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.connection import MAX_HEAD_BYTES, Connection

pytestmark = pytest.mark.anyio

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
PIECE = b"a" * 16_000
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def size_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the size of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    body = b"%d" % size
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Stream]:
    """A client of a server that has `size_app`."""
    config, state = uvicorn.Config(size_app, lifespan="off", log_config=None, ws="none"), ServerState()
    config.load()
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            for connection in list(state.connections):
                connection.transport.close()


async def next_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length: ")[1].split("\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def assert_refused(reader: asyncio.StreamReader) -> None:
    status, body = await next_answer(reader)
    assert (status, json.loads(body)["code"], json.loads(body)["status"]) == (431, "header_too_large", 431)
    assert await reader.read() == b""  # it closes


@pytest.mark.parametrize("start", [HEAD + b"X: ", b"GET /", HEAD + b"\r\n" + HEAD + b"X: "])
async def test_a_head_without_an_end_is_refused_long_before_it_is_all_there(start: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(start)
        for _ in range(12):  # thrice the limit, and no sign of an end
            await writer.drain()
            writer.write(PIECE)
        if start.count(HEAD) == 2:
            assert await next_answer(reader) == (200, b"0")
        await assert_refused(reader)


@pytest.mark.parametrize("before", [b"", HEAD + b"\r\n"])
async def test_a_head_that_is_whole_but_too_long_is_refused(before: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(before + HEAD + b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n")
        if before:
            assert await next_answer(reader) == (200, b"0")
        await assert_refused(reader)


async def test_many_small_headers_are_as_large_as_one() -> None:
    async with connected() as (reader, writer):
        writer.write(HEAD + b"X: y\r\n" * 20_000)
        await assert_refused(reader)


async def test_heads_below_the_limit_pass_one_after_the_other() -> None:
    async with connected() as (reader, writer):
        for _ in range(3):
            writer.write(HEAD + b"X: " + PIECE * 4 + b"\r\n\r\n")
            assert await next_answer(reader) == (200, b"0")


async def test_a_body_does_not_count_as_head() -> None:
    async with connected() as (reader, writer):
        body = b"b" * (5 * MAX_HEAD_BYTES)
        request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        writer.write(request + request)
        for _ in range(2):
            assert await next_answer(reader) == (200, b"%d" % len(body))


async def test_what_is_not_http_is_refused_after_the_answers_that_are_due() -> None:
    async with connected() as (reader, writer):
        writer.write(HEAD + b"\r\n" + b"\x00\x01\r\n\r\n")
        assert await next_answer(reader) == (200, b"0")
        status, body = await next_answer(reader)
        assert (status, json.loads(body)["code"]) == (400, "bad_http")
        assert await reader.read() == b""
