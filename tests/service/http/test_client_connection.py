"""A request and its connection know each other through one object in the ASGI scope."""

from typing import Any

import pytest

from service.errors import Overloaded
from service.http.admission import Admission
from service.http.client_connection import ClientConnection, connection_of, put_connection
from service.http.readiness import Readiness
from service.http.request_context import RequestContext
from service.http.route_labels import RouteNames
from service.http.upload_limits import BodyLimit, UploadMemory
from service.telemetry.metrics import Metrics

pytestmark = pytest.mark.anyio

SCOPE = {"type": "http", "method": "POST", "path": "/", "headers": []}


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b""}


async def send(_: Any) -> None:
    return None


def test_without_a_server_of_this_kind_a_client_never_leaves_and_nothing_is_sent_whole() -> None:
    for scope in ({}, {"extensions": {}}):
        connection = connection_of(scope)
        assert not connection.has_left() and not connection.can_be_answered() and not connection.delays_others()
        assert (connection.send_whole, connection.refused_for) == (None, None)


def test_a_detached_connection_holds_no_request() -> None:
    connection = ClientConnection(send_whole=lambda *_: True)
    connection.attach(lambda: True)
    assert connection.delays_others()
    connection.detach()
    assert (connection.send_whole, connection.delays_others()) == (None, False)


async def test_a_request_sends_whole_responses_and_asks_whether_its_client_has_left() -> None:
    whole: list[int] = []

    def send_whole(status: int, _headers: list[tuple[bytes, bytes]], _body: bytes) -> bool:
        whole.append(status)
        return True

    scope = dict(SCOPE)
    put_connection(scope, ClientConnection(lambda: True, lambda: False, send_whole))
    context = RequestContext(scope, receive, send, UploadMemory(1), is_last=False)
    assert context.is_awaited() is False
    await context.send_answer(200, [(b"content-length", b"1")], b"x")
    assert whole == [200]


@pytest.mark.parametrize(("queue_is_full", "reason"), [(True, "capacity"), (False, None)])
async def test_a_refusal_for_lack_of_capacity_reaches_the_connection(queue_is_full: bool, reason: str | None) -> None:
    async def app(scope: Any, _receive: Any, send: Any) -> None:
        assert connection_of(scope).delays_others.__self__ is scope["exchange"]  # type: ignore[attr-defined]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def check_capacity(_: float) -> None:
        if queue_is_full:
            raise Overloaded("full")

    connection, scope = ClientConnection(send_whole=lambda *_: False), dict(SCOPE)
    put_connection(scope, connection)
    admission = Admission(
        app,
        readiness=Readiness("ready"),
        metrics=Metrics(),
        routes=RouteNames(["/"]),
        bodies={"/": BodyLimit(1)},
        check_capacity=check_capacity,
        upload_memory=UploadMemory(1),
    )
    await admission(scope, receive, send)
    assert connection.refused_for == reason
    assert (connection.send_whole, "exchange" in scope) == (None, False)
