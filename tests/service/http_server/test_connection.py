"""The wire below HTTP: heads that are too long, bytes that are no request, and answers that keep their order."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from service.access_control.access_policy import Access, read_origins
from service.http.client_connection import connection_of
from service.http_server.client_timeouts import ClientTimeouts
from service.http_server.connection import Connection, OnRejected
from service.http_server.early_errors import MAX_HEAD_BYTES
from service.http_server.overload import OverloadControl
from service.http_server.parser import ParsingProtocol

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


async def early_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers before it has read a body."""
    await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})


@contextlib.asynccontextmanager
async def connected(
    app: Any = size_app,
    on_rejected: OnRejected = lambda *_: None,
    idle: dict[ParsingProtocol, None] | None = None,
    overload: OverloadControl | None = None,
    access: Access | None = None,
    **timeouts: float,
) -> AsyncIterator[Stream]:
    """A client of a server."""
    config, state = uvicorn.Config(app, lifespan="off", log_config=None, ws="none"), ServerState()
    config.load()
    loop = asyncio.get_running_loop()
    async with await loop.create_server(
        lambda: Connection(
            config,
            state,  # type: ignore[arg-type]
            {},
            timeouts=ClientTimeouts(**timeouts),
            on_rejected=on_rejected,
            idle=idle,
            overload=overload,
            cors_headers=(access or Access()).cors_headers,
        ),
        "127.0.0.1",
        0,
    ) as server:
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


@pytest.mark.parametrize("path", [b"/v2", b"/v2/models/a?b=c"])
async def test_under_v2_the_refusal_is_an_error_in_json(path: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n")
        status, body = await next_answer(reader)
        assert (status, list(json.loads(body))) == (431, ["error"])


SITE = b"https://shop.example"
WITH_ORIGIN = b"Origin: " + SITE + b"\r\n"


@pytest.mark.parametrize("origins", ["https://shop.example", "https://other.example", "*"])
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n" + WITH_ORIGIN + b"\r\n",  # its body never comes
        HEAD + WITH_ORIGIN + b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n",
        HEAD + WITH_ORIGIN + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n" + WITH_ORIGIN + b"\r\n",
    ],
)
async def test_a_page_reads_the_servers_own_errors_as_those_of_the_application(
    origins: str, request_bytes: bytes
) -> None:
    access = Access(origins=read_origins(origins))
    of_application = access.cors_headers({b"origin": SITE})
    assert of_application
    async with connected(access=access, body_s=0.05) as (reader, writer):
        writer.write(request_bytes)
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
        assert int(status.split()[1]) >= 400
        cors = [line for line in lines if line.startswith((b"access-control-", b"vary"))]
        assert cors == [b"%b: %b" % header for header in of_application]


async def test_a_request_that_cannot_be_read_has_not_the_origin_of_the_one_before() -> None:
    async with connected(access=Access(origins=read_origins("*"))) as (reader, writer):
        writer.write(HEAD + WITH_ORIGIN + b"\r\n")
        assert await next_answer(reader) == (200, b"0")
        writer.write(b"\0\0\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert (head.split()[1], b"access-control" in head) == (b"400", False)


async def test_many_small_headers_are_as_large_as_one() -> None:
    async with connected() as (reader, writer):
        writer.write(HEAD + b"X: y\r\n" * 20_000)
        await assert_refused(reader)


async def test_heads_below_the_limit_pass_one_after_the_other() -> None:
    async with connected() as (reader, writer):
        for _ in range(3):
            writer.write(HEAD + b"X: " + PIECE * 4 + b"\r\n\r\n")
            assert await next_answer(reader) == (200, b"0")


async def test_what_stands_behind_a_header_s_value_is_none_of_it() -> None:
    seen: dict[bytes, bytes] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.update(scope["headers"])
        await size_app(scope, receive, send)

    async with connected(app) as (reader, writer):
        writer.write(HEAD + b"X-Api-Key: a b \t \r\n\r\n")
        assert await next_answer(reader) == (200, b"0")
    assert seen[b"x-api-key"] == b"a b"


async def test_a_refusal_has_an_id_of_its_own_and_somebody_hears_of_it() -> None:
    ids, heard = [], []
    for request in (b"nonsense\r\n\r\n", HEAD + b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n"):
        async with connected(on_rejected=lambda *told: heard.append(told)) as (reader, writer):
            writer.write(request)
            ids += re.findall(rb"x-request-id: ([0-9a-f]+)\r\n", await reader.read())
    assert len(set(ids)) == 2
    assert heard == [(400, "bad_http", ids[0], "127.0.0.1"), (431, "header_too_large", ids[1], "127.0.0.1")]


@pytest.mark.parametrize(
    "rest", [b" / HTTP/1.1\r\n\r\n", b" / HTTP/3.0\r\nHost: a\r\n\r\n", b" / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n"]
)
async def test_the_refusal_of_a_head_request_has_no_content(rest: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(b"HEAD" + rest)
        head, _, content = (await reader.read()).partition(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.1 (400|505) ", head)
    assert re.search(rb"\r\ncontent-length: [1-9]", head)  # as of the response to GET
    assert content == b""


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


async def assert_timed_out(reader: asyncio.StreamReader, dripping: "asyncio.Task[None] | None" = None) -> None:
    status, body = await next_answer(reader)
    if dripping is not None:
        dripping.cancel()
    assert (status, json.loads(body)["code"]) == (408, "request_timeout")
    assert await reader.read() == b""


@pytest.mark.parametrize("before", [0, 2])
@pytest.mark.parametrize("start", [b"GET /", HEAD, HEAD + b"X: a"])
async def test_a_head_that_comes_too_slowly_is_given_up(before: int, start: bytes) -> None:
    async with connected(head_s=0.1) as (reader, writer):
        for _ in range(before):
            writer.write(HEAD + b"\r\n")
            assert await next_answer(reader) == (200, b"0")
        writer.write(start)
        dripping = asyncio.create_task(drip(writer))
        await assert_timed_out(reader, dripping)


async def drip(writer: asyncio.StreamWriter) -> None:
    while True:
        await asyncio.sleep(0.02)
        writer.write(b"a")


@pytest.mark.parametrize("said", [b"", b"\r\n"])
async def test_a_client_that_says_nothing_is_not_waited_for(said: bytes) -> None:
    async with connected(head_s=0.1) as (reader, writer):
        writer.write(said)
        rest = await reader.read()
        assert rest == b"" or (said and rest.startswith(b"HTTP/1.1 408"))


async def test_empty_lines_do_not_keep_a_connection_alive() -> None:
    async with connected(head_s=0.1) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        assert await next_answer(reader) == (200, b"0")
        for _ in range(3):
            writer.write(b"\r\n")
            await asyncio.sleep(0.02)
        await assert_timed_out(reader)


async def test_an_idle_connection_is_kept() -> None:
    async with connected(head_s=0.05) as (reader, writer):
        for _ in range(3):
            writer.write(HEAD + b"\r\n")
            assert await next_answer(reader) == (200, b"0")
            await asyncio.sleep(0.1)


async def test_a_head_that_begins_with_the_end_of_a_request_has_its_limit_too() -> None:
    async with connected(head_s=0.1) as (reader, writer):
        writer.write(HEAD + b"\r\n" + HEAD + b"X: a")
        assert await next_answer(reader) == (200, b"0")
        async with asyncio.timeout(2):  # less than an idle connection is kept
            await assert_timed_out(reader)


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"


async def test_a_body_below_the_least_rate_is_given_up() -> None:
    async with connected(body_start_s=0.1, least_bytes_per_s=10_000) as (reader, writer):
        writer.write(POST)
        dripping = asyncio.create_task(drip(writer))
        await assert_timed_out(reader, dripping)


async def test_a_body_that_takes_too_long_as_a_whole_is_given_up() -> None:
    async with connected(body_s=0.2, body_start_s=0.05, least_bytes_per_s=10) as (reader, writer):
        writer.write(POST)
        dripping = asyncio.create_task(drip(writer))
        await assert_timed_out(reader, dripping)


async def test_a_body_at_a_fair_rate_may_take_its_time() -> None:
    async with connected(body_start_s=0.1, least_bytes_per_s=1000) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(10):
            writer.write(b"a" * 100)
            await asyncio.sleep(0.04)
        assert await next_answer(reader) == (200, b"1000")


async def test_a_body_that_was_answered_early_has_its_limit_too() -> None:
    async with connected(early_app, body_start_s=0.1) as (reader, writer):
        writer.write(POST)
        assert await next_answer(reader) == (404, b"")
        assert await reader.read() == b""  # and no second answer


async def test_a_connection_whose_body_came_after_its_answer_is_idle() -> None:
    async with connected(early_app, head_s=0.1, body_s=0.3, body_start_s=0.3) as (reader, writer):
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n")
            assert await next_answer(reader) == (404, b"")
            writer.write(b"a" * 1000)
            await asyncio.sleep(0.02)
            writer.write(b"a" * 1000)
            await asyncio.sleep(0.6)


class Slow:
    """Answers when it is told to, and knows whether its client is still there."""

    def __init__(self) -> None:
        self.began, self.go_on = asyncio.Event(), asyncio.Event()
        self.has_left: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.has_left = connection_of(scope).has_left
        self.began.set()
        await self.go_on.wait()
        await size_app(scope, receive, send)


async def test_waiting_for_an_answer_is_not_the_clients_delay() -> None:
    slow = Slow()
    async with connected(slow, head_s=0.05, body_start_s=0.05) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        await slow.began.wait()
        await asyncio.sleep(0.2)
        assert not slow.has_left()
        slow.go_on.set()
        assert await next_answer(reader) == (200, b"0")


async def test_it_is_known_when_a_client_has_left() -> None:
    slow = Slow()
    async with connected(slow) as (_, writer):
        writer.write(HEAD + b"\r\n")
        await slow.began.wait()
        writer.close()
        while not slow.has_left():  # noqa: ASYNC110  # a flag that threads read has no event
            await asyncio.sleep(0.01)
        slow.go_on.set()


async def test_a_client_that_does_not_read_its_answer_is_given_up() -> None:
    gone = asyncio.Event()

    async def talkative(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not connection_of(scope).has_left():
            await send({"type": "http.response.body", "body": bytes(1_000_000), "more_body": True})
        gone.set()

    async with connected(talkative, reading_s=0.1) as (_, writer):
        writer.write(HEAD + b"\r\n")
        await gone.wait()


async def test_a_client_that_closed_its_sending_half_still_gets_its_answers_and_then_the_end() -> None:
    slow = Slow()
    async with connected(slow) as (reader, writer):
        writer.write((b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab" + HEAD + b"\r\n") * 2)
        writer.write_eof()
        await slow.began.wait()
        slow.go_on.set()
        for size in (b"2", b"0", b"2", b"0"):
            assert await next_answer(reader) == (200, size)
        async with asyncio.timeout(2):  # less than an idle connection is kept
            assert await reader.read() == b""


async def test_a_closed_sending_half_looks_like_a_client_that_left_but_for_what_can_be_sent() -> None:
    slow, scopes = Slow(), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await slow(scope, receive, send)

    async with connected(app) as (reader, writer):
        writer.write(HEAD + b"\r\n")
        await slow.began.wait()
        assert (slow.has_left(), connection_of(scopes[0]).can_be_answered()) == (False, True)
        writer.write_eof()
        while not slow.has_left():  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.01)
        assert connection_of(scopes[0]).can_be_answered()
        slow.go_on.set()
        assert await next_answer(reader) == (200, b"0")


@pytest.mark.parametrize("sent", [b"", HEAD, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"])
async def test_a_client_that_sends_no_more_before_the_end_of_its_request_has_left(sent: bytes) -> None:
    async with connected(head_s=60, body_s=60, body_start_s=60) as (reader, writer):
        writer.write(sent)
        writer.write_eof()
        assert await reader.read() == b""


async def test_a_client_that_sends_no_more_is_still_told_that_it_sent_no_http() -> None:
    slow = Slow()
    async with connected(slow) as (reader, writer):
        writer.write(HEAD + b"\r\n" + b"\x00\x01\r\n\r\n")
        writer.write_eof()
        await slow.began.wait()
        await asyncio.sleep(0.02)
        slow.go_on.set()
        assert await next_answer(reader) == (200, b"0")
        assert (await next_answer(reader))[0] == 400


async def test_those_who_are_idle_are_known_in_the_order_in_which_they_fell_idle() -> None:
    idle: dict[ParsingProtocol, None] = {}
    slow = Slow()
    async with connected(slow, idle=idle) as (reader, writer):
        (connection,) = idle  # it has connected and said nothing
        idle[None] = None  # type: ignore[index]  # one that falls idle later
        writer.write(HEAD + b"\r\n")
        await slow.began.wait()
        assert list(idle) == [None]
        slow.go_on.set()
        assert await next_answer(reader) == (200, b"0")
        assert list(idle) == [None, connection]
        writer.write(HEAD)
        while connection in idle:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        writer.write(b"\r\n")
        assert await next_answer(reader) == (200, b"0")
        assert list(idle) == [None, connection]
    async with asyncio.timeout(5):
        while connection in idle:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_connection_that_is_idle_too_long_is_closed_and_one_that_is_used_is_not() -> None:
    idle: dict[ParsingProtocol, None] = {}
    async with connected(idle=idle) as (reader, writer):
        (connection,) = idle
        connection.timeout_keep_alive = 1
        for _ in range(4):
            writer.write(HEAD + b"\r\n")
            assert await next_answer(reader) == (200, b"0")
            await asyncio.sleep(0.4)  # together more than the limit
        async with asyncio.timeout(30):
            assert await reader.read() == b""
