"""What becomes a request and what does not: upgrades, heads that HTTP forbids, and how much is parsed at once."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from service.http.client_connection import connection_of
from service.http_server.connection import Connection
from service.http_server.early_errors import MAX_HEADERS
from service.http_server.parser import ParsingProtocol
from service.http_server.parsing_turns import Turns
from tests.service.http_server.test_connection import HEAD, connected, early_app, next_answer, size_app

pytestmark = pytest.mark.anyio
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
UPGRADES = [
    H2C,
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
    b"connection:keep-alive ,\tUPGRADE\r\nuPgRaDe:\t TLS/1.0, HTTP/2.0 \r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\nX: y\r\nUpgrade: websocket\r\nUpgrade:\r\n",
    b"Connection: Upgrade\r\nConnection: keep-alive\r\nUpgrade: a\r\n",
]
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


async def echo_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers the method, the path and the body; notes the path."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    told = b"%b %b %b" % (scope["method"].encode(), scope["path"].encode(), body)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(told))]})
    await send({"type": "http.response.body", "body": told})


async def refusal(reader: asyncio.StreamReader) -> tuple[int, str]:
    """The status and the code of an answer behind which the connection closes."""
    status, body = await next_answer(reader)
    assert await reader.read() == b""
    return status, json.loads(body)["code"]


def chunked(body: bytes, size: int = 10) -> bytes:
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("cut", ["whole", "after the head", "bytes"])
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("upgrade", UPGRADES)
async def test_an_upgrade_is_ignored_and_the_request_is_served_with_its_body(
    upgrade: bytes, framing: str, cut: str
) -> None:
    body = (b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED) if framing == "length" else b""
    body = body or b"Transfer-Encoding: chunked\r\n\r\n" + chunked(SMUGGLED)
    request = b"POST /a HTTP/1.1\r\nHost: a\r\n" + upgrade + body
    async with connected(echo_app) as (reader, writer):
        head = request.index(b"\r\n\r\n") + 4
        for piece in {
            "whole": [request + HEAD + b"\r\n"],
            "after the head": [request[:head], request[head:] + HEAD + b"\r\n"],
            "bytes": [request[start : start + 1] for start in range(len(request))] + [HEAD + b"\r\n"],
        }[cut]:
            writer.write(piece)
            await asyncio.sleep(0.001 if cut != "bytes" else 0)
        assert await next_answer(reader) == (200, b"POST /a " + SMUGGLED)
        assert await next_answer(reader) == (200, b"GET / ")


async def test_requests_behind_an_upgrade_and_upgrades_without_a_body_are_served_in_turn() -> None:
    async with connected(echo_app) as (reader, writer):
        writer.write(b"GET /a HTTP/1.1\r\nHost: a\r\n%b\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n" % H2C * 2)
        for path in (b"/a", b"/b", b"/a", b"/b"):
            assert await next_answer(reader) == (200, b"GET %b " % path)


@pytest.mark.parametrize("start", [b"HTTP/1.0\r\n", b"HTTP/1.1\r\nHost: a\r\nConnection: close, x\r\n"])
async def test_an_upgrade_on_a_connection_that_is_not_kept_is_ignored(start: bytes) -> None:
    async with connected(echo_app) as (reader, writer):
        writer.write(b"POST /a %b%bContent-Length: 5\r\n\r\nhello%b" % (start, UPGRADES[2], SMUGGLED))
        assert await next_answer(reader) == (200, b"POST /a hello")
        assert await reader.read() == b""


async def test_the_application_sees_all_headers_but_the_upgrade() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend(scope["headers"])
        await size_app(scope, receive, send)

    async with connected(app) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nX: 1\r\n%bX: 2\r\nContent-Length: 2\r\n\r\nab" % UPGRADES[2])
        assert await next_answer(reader) == (200, b"2")
    names = [b"host", b"x", b"connection", b"sec-websocket-version", b"x", b"content-length"]
    assert [name for name, _ in seen] == names
    assert [value for name, value in seen if name == b"x"] == [b"1", b"2"]


FORBIDDEN = {
    b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n" + SMUGGLED: (405, "method_not_allowed"),
    b"CONNECT / HTTP/1.1\r\nHost: a\r\nContent-Length: 36\r\n\r\n" + SMUGGLED: (405, "method_not_allowed"),
    b"GET / HTTP/1.1\r\n\r\n" + SMUGGLED: (400, "bad_host"),
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n" + SMUGGLED: (400, "bad_host"),
    b"GET / HTTP/1.1\r\nHOST: a\r\nX: y\r\nhost: b\r\n\r\n" + SMUGGLED: (400, "bad_host"),
    b"GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n" + SMUGGLED: (400, "bad_host"),
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n" + SMUGGLED: (400, "bad_host"),
    b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n" + SMUGGLED: (400, "bad_host"),
    b"GET http://a/ HTTP/1.1\r\n\r\n" + SMUGGLED: (400, "bad_host"),
    b"GET / HTTP/1.1\r\n%b\r\n" % H2C + SMUGGLED: (400, "bad_host"),
    b"POST / HTTP/1.1\r\n\r\n" + SMUGGLED: (400, "bad_host"),
    b"GET / HTTP/2.0\r\nHost: a\r\n\r\n" + SMUGGLED: (505, "unknown_http_version"),
    b"GET / HTTP/0.9\r\n\r\n" + SMUGGLED: (505, "unknown_http_version"),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SMUGGLED: (400, "bad_http"),
}
CODINGS = {
    b"gzip": 501,
    b"gzip, chunked": 501,
    b"gzip,chunked": 501,
    b"identity": 501,
    b"xchunked": 501,
    b"chunked;q=1": 501,
    b"gzip\r\nTransfer-Encoding: chunked": 501,
    b"identity\r\nTransfer-Encoding: chunked": 501,
    b"chunked, chunked": 400,
    b"chunked\r\nTransfer-Encoding: chunked": 400,
    b"chunked, gzip": 400,
    b"chunked, identity": 400,
    b"": 400,
    b"chunked,": 400,
    b"chunked\r\nContent-Length: 3": 400,
}


@pytest.mark.parametrize("request_", FORBIDDEN)
async def test_a_head_that_http_forbids_is_refused_and_nothing_behind_it_is_a_request(request_: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(HEAD + b"\r\n" + request_)
        assert await next_answer(reader) == (200, b"0")
        assert await refusal(reader) == FORBIDDEN[request_]


@pytest.mark.parametrize("coding", CODINGS)
async def test_a_transfer_coding_other_than_chunked_is_refused(coding: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: %b\r\n\r\n" % coding + chunked(b"abc") + SMUGGLED
        )
        code = {400: "bad_http", 501: "unknown_transfer_coding"}
        assert await refusal(reader) == (CODINGS[coding], code[CODINGS[coding]])


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: [::1]:8000\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: my_service.default.svc:80 \r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:  CHUNKED \r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_http_allows_is_served(head: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(head)
        assert await next_answer(reader) == (200, b"0")


async def test_connect_is_refused_with_the_allowed_methods() -> None:
    async with connected() as (reader, writer):
        writer.write(b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"\r\nallow: GET, HEAD, POST\r\n" in await reader.read()


async def test_http_1_0_never_gets_100_continue() -> None:
    for version, told in ((b"1.0", b""), (b"1.1", b"HTTP/1.1 100 Continue\r\n\r\n")):
        async with connected() as (reader, writer):
            writer.write(b"POST / HTTP/%b\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n" % version)
            await asyncio.sleep(0.02)
            writer.write(b"ab")
            assert (await reader.readuntil(b"HTTP/1.1 200 OK\r\n")).removesuffix(b"HTTP/1.1 200 OK\r\n") == told


async def test_a_head_may_have_many_lines_but_not_endlessly_many() -> None:
    async with connected() as (reader, writer):
        writer.write(HEAD + b"X: y\r\n" * (MAX_HEADERS - 1) + b"\r\n")
        assert await next_answer(reader) == (200, b"0")
        writer.write(HEAD + b"X: y\r\n" * MAX_HEADERS + b"\r\n")
        assert await refusal(reader) == (431, "header_too_large")


CHUNKED_HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


async def test_trailers_are_no_headers_and_end_a_body() -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await size_app(scope, receive, send)
        seen.extend(scope["headers"])

    async with connected(app) as (reader, writer):
        writer.write(CHUNKED_HEAD + b"3\r\nabc\r\n0\r\nX-Api-Key: k\r\nY: z\r\n\r\n" + HEAD + b"\r\n")
        assert await next_answer(reader) == (200, b"3")
        assert await next_answer(reader) == (200, b"0")
    assert {name for name, _ in seen} == {b"host", b"transfer-encoding"}


@pytest.mark.parametrize(
    "flood", [b"0\r\n" + b"X: y\r\n" * 20_000, b"0\r\nX: " + b"y" * 200_000, b"1;" + b"x" * 200_000]
)
async def test_endless_trailers_and_chunk_extensions_are_refused(flood: bytes) -> None:
    async with connected() as (reader, writer):
        writer.write(CHUNKED_HEAD + b"1\r\na\r\n" + flood)
        assert await refusal(reader) == (431, "header_too_large")


async def test_a_body_of_small_chunks_is_taken() -> None:
    for body, size in ((bytes(1000), 1), (b"\r\n\r\n" * 2000, 7), (bytes(300_000), 64), (bytes(3_000_000), 70_000)):
        async with connected() as (reader, writer):
            writer.write(CHUNKED_HEAD + chunked(body, size) + HEAD + b"\r\n")
            assert await next_answer(reader) == (200, b"%d" % len(body))
            assert await next_answer(reader) == (200, b"0")


async def test_a_body_of_very_many_tiny_chunks_is_refused() -> None:
    async with connected() as (reader, writer):
        writer.write(CHUNKED_HEAD + b"1\r\na\r\n" * 20_000)
        assert await refusal(reader) == (400, "tiny_chunks")


async def test_garbage_in_a_body_that_was_answered_early_gets_no_second_answer() -> None:
    async with connected(early_app) as (reader, writer):
        writer.write(CHUNKED_HEAD)
        assert await next_answer(reader) == (404, b"")
        writer.write(b"garbage\r\n" + SMUGGLED)
        assert await reader.read() == b""


@contextlib.contextmanager
def calls_between_passes(monkeypatch: pytest.MonkeyPatch, *names: str) -> Iterator[Counter[str]]:
    """The most calls of a connection's methods, each without the event loop having its turn in between."""
    now, most = Counter[str](), Counter[str]()
    loop = asyncio.get_running_loop()

    def counting(name: str) -> Any:
        method = getattr(ParsingProtocol, name)

        def count(self: Connection, *arguments: Any) -> Any:
            now[name] += 1
            most[name] = max(most[name], now[name])
            return method(self, *arguments)

        return count

    async def pass_by() -> None:
        while True:
            now.clear()
            await asyncio.sleep(0)

    for name in names:
        monkeypatch.setattr(ParsingProtocol, name, counting(name))
    passing = loop.create_task(pass_by())
    yield most
    passing.cancel()


@pytest.mark.parametrize("clients", [1, 8])
async def test_of_pipelined_requests_each_waits_for_the_answer_before(
    monkeypatch: pytest.MonkeyPatch, clients: int
) -> None:
    request = HEAD + b"\r\n"
    with calls_between_passes(monkeypatch, "on_message_begin") as most:
        async with contextlib.AsyncExitStack() as stack:
            streams = [await stack.enter_async_context(connected()) for _ in range(clients)]
            for _, writer in streams:
                writer.write(request * 2000)
            for reader, _ in streams:
                for _ in range(2000):
                    assert await next_answer(reader) == (200, b"0")
    assert 1 <= most["on_message_begin"] <= 2 * clients


async def test_the_rest_of_a_pipeline_waits_in_the_kernel() -> None:
    began, go_on = asyncio.Event(), asyncio.Event()
    connections: list[Any] = []

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        has_left: Any = connection_of(scope).has_left
        connections.append(has_left.__self__)
        began.set()
        await go_on.wait()
        await size_app(scope, receive, send)

    async with connected(slow) as (reader, writer):
        writer.transport.set_write_buffer_limits(1 << 26)
        for _ in range(100):
            writer.write(HEAD + b"X: " + b"a" * 60_000 + b"\r\n\r\n")
        await began.wait()
        await asyncio.sleep(0.05)
        (connection,) = connections
        assert connection.flow.read_paused
        assert len(connection._unparsed) <= 2 * 256 * 1024
        assert not connection.pipeline
        go_on.set()
        for _ in range(100):
            assert await next_answer(reader) == (200, b"0")
        assert (connection._unparsed, connection._turns.unparsed_bytes) == (b"", 0)


async def test_a_turn_parses_few_of_many_tiny_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    with calls_between_passes(monkeypatch, "on_body") as most:
        async with connected() as (reader, writer):
            writer.write(CHUNKED_HEAD + chunked(bytes(10_000), 1))
            assert await next_answer(reader) == (200, b"10000")
    assert 1 <= most["on_body"] <= 400


async def test_turns_are_given_in_order_and_a_new_request_comes_first() -> None:
    loop, turns, given = asyncio.get_running_loop(), Turns(), []
    passes = asyncio.get_running_loop().create_future()
    for number in range(20):
        turns.wait(loop, lambda number=number: given.append(number), is_first=False)  # type: ignore[misc]
    turns.wait(loop, lambda: given.append("first"), is_first=True)
    turns.wait(loop, lambda: passes.set_result(list(given)), is_first=False)
    assert await passes == ["first", *range(20)]


async def test_a_pass_gives_a_bounded_number_of_turns_and_then_goes_on() -> None:
    loop, turns, given = asyncio.get_running_loop(), Turns(), []
    free = sum(turns.take(loop) for _ in range(1000))
    assert 1 <= free < 1000
    for number in range(1000):
        turns.wait(loop, lambda number=number: given.append(number), is_first=True)  # type: ignore[misc]
    most, before = 0, 0
    while len(given) < 1000:
        await asyncio.sleep(0)
        most, before = max(most, len(given) - before), len(given)
    assert most <= 64
    assert given == list(range(1000))


async def test_a_turn_that_fails_does_not_end_the_others() -> None:
    loop, turns, done = asyncio.get_running_loop(), Turns(), asyncio.Event()
    loop.set_exception_handler(lambda *_: None)

    def fail() -> None:
        raise ValueError

    turns.wait(loop, fail, is_first=True)
    turns.wait(loop, done.set, is_first=False)
    await done.wait()


async def test_passes_that_take_long_give_fewer_turns_until_they_are_short_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("service.http_server.parsing_turns.time.thread_time", lambda: now)
    loop, turns, given = asyncio.get_running_loop(), Turns(), Counter[int]()
    number = 0

    def turn(cost: float) -> None:
        nonlocal now
        now += cost
        given[number] += 1

    async def turns_of_passes(passes: int, cost: float) -> list[int]:
        nonlocal number
        for _ in range(1000):
            turns.wait(loop, lambda: turn(cost), is_first=True)
        first = number
        for _ in range(passes):
            number += 1
            await asyncio.sleep(0)
        turns._first.clear()
        return [given[each] for each in range(first + 1, number + 1)]

    assert (await turns_of_passes(8, 0.0))[-1] == 32
    slow = await turns_of_passes(8, 0.03)
    assert (slow[0], slow[-1]) == (32, 1)
    assert (await turns_of_passes(8, 0.0))[-1] == 32
