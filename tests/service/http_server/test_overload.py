"""Requests without capacity on real connections: refused from their heads, delayed where they are repeated at once."""

import asyncio
import time

import pytest
from starlette.types import Receive, Scope, Send

from service.access_control.access_policy import Access
from service.http.early_refusals import EarlyRefusals
from service.http.readiness import Readiness
from service.http.route_labels import RouteNames
from service.http.upload_limits import BodyLimit
from service.http_server.overload import OverloadControl
from service.http_server.whole_requests import WholeRequestParser
from service.telemetry.metrics import Metrics
from tests.service.http_server.test_connection import connected, next_answer, size_app

pytestmark = pytest.mark.anyio

REQUEST = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


class Queue:
    """Has capacity, or not."""

    def __init__(self) -> None:
        self.has_capacity = False
        self.served = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.served += 1
        await size_app(scope, receive, send)

    def control(self, immediate_retry_s: float = 0.0) -> OverloadControl:
        readiness = Readiness("ready")
        refusals = EarlyRefusals(
            retry_after_s=lambda: 1,
            readiness=readiness,
            routes=RouteNames(["/classify"]),
            bodies={"/classify": BodyLimit(1000)},
            access=Access(),
            metrics=Metrics(),
        )
        return OverloadControl(lambda _: self.has_capacity, refusals, immediate_retry_s=immediate_retry_s)


@pytest.mark.parametrize(
    ("data", "is_whole"),
    [
        (REQUEST, True),
        (REQUEST[:-1], False),
        (REQUEST + REQUEST, False),
        (REQUEST + b"P", False),
        (REQUEST.replace(b"POST", b"GET "), False),
        (REQUEST.replace(b"1.1", b"1.0"), False),
        (REQUEST.replace(b"Host: a", b"Host: a\r\nConnection: upgrade\r\nUpgrade: h2c"), False),
        (b"nonsense\r\n\r\n", False),
        (b"POST /classify HTTP/1.1\r\nHost: a\r\n\r\n", True),
    ],
)
def test_a_parser_takes_exactly_one_whole_post_and_is_the_same_afterwards(data: bytes, is_whole: bool) -> None:
    parser = WholeRequestParser()
    assert parser.parse(data) == is_whole
    assert parser.parse(REQUEST)
    assert (parser.target, dict(parser.headers)) == (b"/classify", {b"host": b"a", b"content-length": b"3"})
    assert parser.is_kept_alive


async def test_a_request_without_capacity_never_reaches_the_application() -> None:
    queue = Queue()
    async with connected(queue, overload=queue.control()) as (reader, writer):
        writer.write(REQUEST)
        assert (await next_answer(reader))[0] == 503
        assert queue.served == 0
        queue.has_capacity = True
        await asyncio.sleep(0.01)  # longer than the answer of the queue is remembered
        writer.write(REQUEST)
        assert (await next_answer(reader))[0] == 200
    assert queue.served == 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /other HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        REQUEST.replace(b"Host: a", b"Host: a\r\nHost: b"),
        REQUEST.replace(b"Content-Length: 3\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
    ],
)
async def test_all_other_requests_are_handled_as_ever(request_bytes: bytes) -> None:
    queue = Queue()
    async with connected(queue, overload=queue.control()) as (reader, writer):
        writer.write(request_bytes)
        status, _ = await next_answer(reader)
    assert status in (200, 400)
    assert queue.served == (status == 200)


async def test_a_request_in_two_pieces_is_left_to_admission() -> None:
    queue = Queue()
    async with connected(queue, overload=queue.control()) as (reader, writer):
        writer.write(REQUEST[:30])
        await asyncio.sleep(0.05)
        writer.write(REQUEST[30:])
        assert (await next_answer(reader))[0] == 200
    assert queue.served == 1


async def test_a_connection_that_ends_with_its_request_is_closed_after_the_refusal() -> None:
    queue = Queue()
    async with connected(queue, overload=queue.control()) as (reader, writer):
        writer.write(REQUEST.replace(b"Host: a", b"Host: a\r\nConnection: close"))
        assert (await next_answer(reader))[0] == 503
        assert await asyncio.wait_for(reader.read(), 5) == b""


async def test_a_client_that_repeats_its_request_at_once_is_delayed() -> None:
    queue = Queue()
    async with connected(queue, overload=queue.control(immediate_retry_s=60)) as (reader, writer):
        times = []
        for _ in range(3):
            started = time.monotonic()
            writer.write(REQUEST)
            assert (await next_answer(reader))[0] == 503
            times.append(time.monotonic() - started)
    assert min(times[1:]) >= 0.19


async def test_a_delay_ends_when_there_is_capacity() -> None:
    queue = Queue()
    async with connected(queue, overload=queue.control(immediate_retry_s=60)) as (reader, writer):
        writer.write(REQUEST)
        assert (await next_answer(reader))[0] == 503
        started = time.monotonic()
        writer.write(REQUEST)
        await asyncio.sleep(0.02)
        queue.has_capacity = True
        assert (await next_answer(reader))[0] == 200
        assert time.monotonic() - started < 0.19
    assert queue.served == 1


async def test_a_delayed_client_may_leave() -> None:
    queue = Queue()
    control = queue.control(immediate_retry_s=60)
    async with connected(queue, overload=control) as (reader, writer):
        writer.write(REQUEST)
        assert (await next_answer(reader))[0] == 503
        writer.write(REQUEST)
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.25)
    assert not control._paused
    assert queue.served == 0


async def test_a_retry_that_waited_for_a_long_pass_of_the_event_loop_is_an_immediate_one() -> None:
    control, loop = Queue().control(immediate_retry_s=0.01), asyncio.get_running_loop()
    control.note_refusal(loop, time.monotonic() - 0.03)  # the pass has lasted for 30 ms
    control.note_refusal(loop, time.monotonic())
    await asyncio.sleep(0)
    assert 0.07 <= control.immediate_retry_s <= 0.11
    control.note_refusal(loop, time.monotonic() - 60)
    await asyncio.sleep(0)
    assert control.immediate_retry_s == pytest.approx(0.11)  # after the longest pass that counts
    control.note_refusal(loop, time.monotonic())
    await asyncio.sleep(0)
    assert 0.01 <= control.immediate_retry_s < 0.11  # follows the last pass
