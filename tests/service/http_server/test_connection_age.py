"""Connections that close after a response because of their age, so that keep-alive clients reach new replicas."""

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from service.http.request_context import RequestContext
from service.http.upload_limits import UploadMemory
from service.http_server.client_timeouts import ClientTimeouts
from tests.service.http_server.test_connection import HEAD, connected, next_answer
from tests.service.http_server.test_overload import REQUEST, Queue

pytestmark = pytest.mark.anyio

GET = HEAD + b"\r\n"


class Served:
    """Answers with a `RequestContext`, as the service does; a request for /slow waits until it is let go."""

    def __init__(self) -> None:
        self.began, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = RequestContext(scope, receive, send, UploadMemory(1), is_last=False)
        if scope["path"] == "/slow":
            self.began.set()
            await self.go_on.wait()
        await context.send_answer(200, [(b"content-length", b"2")], b"ok")


async def answers_until_the_end(reader: asyncio.StreamReader) -> list[bytes]:
    """The responses that arrive until the server closes."""
    return (await reader.read()).split(b"HTTP/1.1 200 OK")[1:]


async def test_a_response_closes_a_connection_that_has_reached_its_age() -> None:
    async with connected(Served(), connection_age_s=0.0) as (reader, writer):
        writer.write(GET)
        (answer,) = await answers_until_the_end(reader)
        assert b"\r\nconnection: close\r\n" in answer
        assert answer.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("age", [{}, {"connection_age_s": 3600.0}])
async def test_a_younger_connection_stays_open(age: dict[str, float]) -> None:
    async with connected(Served(), **age) as (reader, writer):
        for _ in range(3):
            writer.write(GET)
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"connection" not in head.lower()
            assert await reader.readexactly(2) == b"ok"


async def test_an_old_connection_answers_every_request_that_has_arrived_before_it_closes() -> None:
    served = Served()
    async with connected(served, connection_age_s=0.0) as (reader, writer):
        writer.write(GET.replace(b"GET /", b"GET /slow"))
        await served.began.wait()
        writer.write(GET * 3)
        await asyncio.sleep(0)  # the loop passes the bytes on before the response is sent
        await asyncio.sleep(0.02)
        served.go_on.set()
        answers = await answers_until_the_end(reader)
    assert [b"connection: close" in answer for answer in answers] == [False, False, False, True]


async def test_an_old_connection_that_is_idle_stays_open_because_a_request_may_be_on_its_way() -> None:
    async with connected(Served(), connection_age_s=0.01) as (reader, writer):
        await asyncio.sleep(0.1)  # far beyond the age
        writer.write(GET)
        assert len(await answers_until_the_end(reader)) == 1


@pytest.mark.parametrize(("age_s", "closes"), [(0.0, True), (3600.0, False)])
async def test_a_refusal_without_capacity_closes_an_old_connection_too(age_s: float, closes: bool) -> None:
    queue = Queue()
    async with connected(queue, overload=queue.control(), connection_age_s=age_s) as (reader, writer):
        writer.write(REQUEST)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 503")
        assert (b"connection: close" in head) == closes
        if closes:
            assert not (await reader.read()).startswith(b"HTTP")


async def test_a_response_to_http_1_0_is_as_before() -> None:
    async with connected(Served(), connection_age_s=0.0) as (reader, writer):
        writer.write(GET.replace(b"1.1", b"1.0"))
        assert (await next_answer(reader))[0] == 200
        assert await reader.read() == b""


def test_connections_of_the_same_moment_reach_their_age_at_different_times_within_a_tenth() -> None:
    timeouts = ClientTimeouts(connection_age_s=100.0)
    times = {timeouts.last_response_from(1000.0) for _ in range(200)}
    assert len(times) > 100
    assert min(times) >= 1090.0
    assert max(times) <= 1110.0


def test_without_an_age_no_response_is_the_last() -> None:
    assert ClientTimeouts().last_response_from(1000.0) == float("inf")
