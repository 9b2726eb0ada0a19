"""The door: what is refused before its body is read, and how an early answer reaches its client."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from service.errors import Overloaded, request_too_large
from service.http import request_context
from service.http.admission import Admission
from service.http.readiness import Readiness
from service.http.request_context import LINGER_BYTES
from service.http.route_labels import RouteNames
from service.http.upload_limits import FORM_BYTES, BodyLimit, UploadMemory
from service.telemetry.metrics import Metrics
from service.telemetry.prometheus import render

pytestmark = pytest.mark.anyio

LIMIT = 1000
Headers = dict[str, str]


class Client:
    """One request's far end: hands over the body in pieces and keeps what it is sent."""

    def __init__(self, *pieces: bytes, leaves: bool = True, waits: bool = False) -> None:
        self._pieces = list(pieces)
        self._leaves = leaves
        self.go_on = asyncio.Event()  # a client that waits sends its first piece only, until this is set
        if not waits:
            self.go_on.set()
        self.taken = 0  # bytes that the server asked for
        self.sent: list[Any] = []
        self.answered = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if not self._pieces:
            if not self._leaves:
                await asyncio.Event().wait()
            return {"type": "http.disconnect"}
        if self.taken:
            await self.go_on.wait()
        piece = self._pieces.pop(0)
        self.taken += len(piece)
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body":
            self.answered.set()

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent[1:]).decode()


async def reading_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads everything, then says how much it was."""
    read = 0
    while (message := await receive())["type"] == "http.request":
        read += len(message["body"])
        if not message["more_body"]:
            break
    await answer_ok(send, str(read))


async def lazy_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers without reading."""
    await answer_ok(send, "done")


async def answer_ok(send: Send, text: str) -> None:
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


def no_room(_: float) -> None:
    raise Overloaded("full", retry_after_s=3)


async def ask(
    client: Client,
    headers: Headers,
    *,
    app: Any = reading_app,
    state: Any = "ready",
    check_capacity: Callable[[float], None] = lambda _: None,
    method: str = "POST",
    path: str = "/classify",
) -> Metrics:
    readiness, metrics = Readiness(state), Metrics()
    admission = Admission(
        app,
        readiness=readiness,
        metrics=metrics,
        routes=RouteNames(["/classify", "/many/{name}"]),
        bodies={"/classify": BodyLimit(LIMIT), "/many/{name}": BodyLimit(2 * LIMIT, 0, request_too_large)},
        check_capacity=check_capacity,
        upload_memory=UploadMemory(10_000_000),
    )
    encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": encoded}
    await admission(scope, client.receive, client.send)
    return metrics


async def test_a_body_within_the_limit_passes_untouched() -> None:
    client = Client(b"a" * 400, b"b" * 600)
    await ask(client, {"content-length": "1000"})
    assert (client.status, client.text) == (200, "1000")
    assert "connection" not in client.headers


async def test_a_declared_length_above_the_limit_is_refused_unread() -> None:
    client = Client(b"a" * 1001)
    await ask(client, {"content-length": "1001"})
    assert client.status == 413
    assert client.taken == 0
    assert "connection" not in client.headers  # the rest is small: the HTTP server skips it and goes on


async def test_a_form_has_some_room_around_its_file() -> None:
    headers = {"content-type": "Multipart/form-data; boundary=b"}
    client = Client(b"a" * (LIMIT + FORM_BYTES))
    await ask(client, headers | {"content-length": str(LIMIT + FORM_BYTES)})
    assert client.status == 200
    client = Client(b"a")
    await ask(client, headers | {"content-length": str(LIMIT + FORM_BYTES + 1)})
    assert client.status == 413


async def test_each_path_has_its_own_limit() -> None:
    client = Client(b"a" * 2 * LIMIT)
    await ask(client, {"content-length": str(2 * LIMIT)}, path="/many/things")
    assert (client.status, client.text) == (200, str(2 * LIMIT))
    form = {"content-type": "multipart/form-data; boundary=b"}
    client = Client(b"a")
    await ask(client, form | {"content-length": str(2 * LIMIT + 1)}, path="/many/things")
    assert client.status == 413
    assert "this request" in client.text


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/other"), ("GET", "/classify"), ("PUT", "/classify"), ("GET", "/other")]
)
async def test_where_no_body_belongs_the_path_and_method_are_judged_first(method: str, path: str) -> None:
    client = Client(*[b"a" * 10_000] * 1000)
    await ask(client, {"content-length": "10000000"}, app=lazy_app, method=method, path=path)
    assert client.status == 200  # the app had its say
    assert client.headers["connection"] == "close"
    assert client.taken <= LINGER_BYTES + 10_000


async def test_a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_long() -> None:
    client = Client(*[b"a" * 100] * 1000)
    await ask(client, {"transfer-encoding": "chunked"})
    assert client.status == 413
    assert client.taken <= 1100 + LINGER_BYTES + 100
    assert client.headers["connection"] == "close"


@pytest.mark.parametrize("length", ["abc", "-1", "+5", "1e3", "", "9" * 30, "٣"])
async def test_a_length_that_is_no_number_is_refused(length: str) -> None:
    client = Client(b"a")
    await ask(client, {"content-length": length})
    assert client.status == 400
    assert "bad_content_length" in client.text


async def test_an_overloaded_server_refuses_work_unread_and_still_answers_the_rest() -> None:
    client = Client(b"a" * 100)
    metrics = await ask(client, {"content-length": "100"}, check_capacity=no_room)
    assert (client.status, client.taken) == (503, 0)
    assert client.headers["retry-after"] == "3"
    assert b'resnet_refusals_total{code="overloaded"} 1.0' in render(metrics.snapshot())
    for method, path in (("GET", "/classify"), ("POST", "/other")):
        client = Client(b"")
        await ask(client, {}, check_capacity=no_room, method=method, path=path)
        assert client.status == 200


async def test_a_starting_server_refuses_work() -> None:
    client = Client(b"a")
    await ask(client, {"content-length": "1"}, state="starting")
    assert client.status == 503


async def test_a_draining_server_answers_and_says_goodbye() -> None:
    client = Client(b"a")
    await ask(client, {"content-length": "1"}, state="draining")
    assert client.status == 200
    assert client.headers["connection"] == "close"


async def test_after_an_early_answer_a_little_is_read_before_the_connection_closes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_context, "LINGER_S", 0.05)
    client = Client(*[b"a" * 10_000] * 1000)
    await ask(client, {"content-length": "10000000"})
    assert client.status == 413
    assert client.headers["connection"] == "close"
    assert LINGER_BYTES <= client.taken <= LINGER_BYTES + 10_000
    # The whole answer leaves before the first byte is discarded, and its end comes last of all.
    assert [message.get("more_body", False) for message in client.sent[1:]] == [True, False]


async def test_the_answer_is_out_while_a_slow_client_is_still_given_its_moment() -> None:
    client = Client(b"a" * 10, leaves=False)
    asking = asyncio.create_task(ask(client, {"transfer-encoding": "chunked"}, app=lazy_app))
    await asyncio.wait_for(client.answered.wait(), 10)
    assert client.text == "done"
    await asyncio.wait_for(asking, 10)


async def test_a_client_that_never_sends_what_it_announced_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_context, "LINGER_S", 0.01)
    client = Client(leaves=False)
    await asyncio.wait_for(ask(client, {"content-length": "2000", "expect": "100-continue"}), 10)
    assert client.status == 413
    assert client.headers["connection"] == "close"


async def test_requests_without_a_body_keep_their_connection() -> None:
    for headers in ({}, {"content-length": "0"}):
        client = Client(b"")
        await ask(client, headers, app=lazy_app, method="GET")
        assert "connection" not in client.headers


async def test_uploads_share_a_limit_on_memory_and_give_it_back() -> None:
    readiness, size = Readiness("ready"), LIMIT + FORM_BYTES
    admission = Admission(
        reading_app,
        readiness=readiness,
        metrics=Metrics(),
        routes=RouteNames(["/"]),
        bodies={"/": BodyLimit(LIMIT)},
        upload_memory=UploadMemory(size // 4),
    )
    scope = {"type": "http", "method": "POST", "path": "/", "headers": [
        (b"content-type", b"multipart/form-data"), (b"content-length", str(size).encode())]}  # fmt: skip
    slow, second, third = (Client(b"a" * half, b"b" * half, waits=True) for half in [size // 2] * 3)
    waiting = asyncio.create_task(admission(scope, slow.receive, slow.send))
    await asyncio.sleep(0)  # half of its body is in
    second.go_on.set()
    await admission(scope, second.receive, second.send)
    assert second.status == 503
    slow.go_on.set()
    await waiting
    assert slow.status == 200
    third.go_on.set()
    await admission(scope, third.receive, third.send)
    assert third.status == 200


async def test_a_client_that_leaves_during_its_upload_is_no_failure_of_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def reads_with_starlette(scope: Scope, receive: Receive, _: Send) -> None:
        await Request(scope, receive).body()

    client = Client()  # it sends nothing and disconnects
    metrics = await ask(client, {"content-length": "20"}, app=reads_with_starlette)
    assert client.sent == []
    assert b'status="500"' not in render(metrics.snapshot())
    assert caplog.text == ""


async def test_a_request_given_up_at_the_end_is_reported() -> None:
    client = Client(leaves=False)
    asking = asyncio.create_task(ask(client, {"content-length": "100"}, state="draining"))
    await asyncio.sleep(0)  # it waits for the body now
    asking.cancel()
    await asking
    assert client.status == 503
    assert "draining" in client.text


async def test_a_cancellation_at_any_other_time_is_passed_on() -> None:
    client = Client(leaves=False)
    asking = asyncio.create_task(ask(client, {"content-length": "100"}))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert client.sent == []


async def test_other_protocols_pass_through() -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    admission = Admission(
        app,
        readiness=Readiness(),
        metrics=Metrics(),
        routes=RouteNames(()),
        bodies={},
        upload_memory=UploadMemory(1),
    )
    client = Client()
    await admission({"type": "lifespan"}, client.receive, client.send)
    assert seen == [{"type": "lifespan"}]


async def broken_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Fails without a response."""
    raise RuntimeError("a secret of the server")


@pytest.mark.parametrize(
    ("path", "media_type"),
    [("/classify", "application/problem+json"), ("/v2/x", "application/json"), ("/hf/x", "application/json")],
)
async def test_an_unexpected_failure_is_logged_and_its_response_has_no_details(
    path: str, media_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = Client(b"a")
    metrics = await ask(client, {"content-length": "1"}, app=broken_app, path=path)
    assert (client.status, client.headers["content-type"]) == (500, media_type)
    assert "secret" not in client.text
    assert "a secret of the server" in caplog.text
    assert b'status="500"} 1.0' in render(metrics.snapshot())


async def test_a_failure_after_the_beginning_of_a_response_is_left_to_the_http_server() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
        raise RuntimeError("half way")

    client = Client(b"a")
    with pytest.raises(RuntimeError, match="half way"):
        await ask(client, {"content-length": "1"}, app=app)
    assert [message["type"] for message in client.sent] == ["http.response.start"]
