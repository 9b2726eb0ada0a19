"""Refusals from the head alone: as `Admission` words them, and only where capacity is all that is missing."""

import hashlib
import json
from pathlib import Path

import pytest

from service.access_control.access_policy import Access, make_access
from service.errors import Overloaded
from service.http.access_log import AccessLog, as_json
from service.http.admission import Admission
from service.http.early_refusals import EarlyRefusals
from service.http.readiness import Readiness, State
from service.http.route_labels import RouteNames
from service.http.upload_limits import BodyLimit, UploadMemory
from service.telemetry.metrics import Metrics
from service.telemetry.prometheus import render
from tests.service.http.test_admission import Client, lazy_app

pytestmark = pytest.mark.anyio

ROUTES = RouteNames(["/classify", "/v2/models/{model}/infer", "/docs"])
BODIES = {"/classify": BodyLimit(1000), "/v2/models/{model}/infer": BodyLimit(1000)}
HEADERS = {b"host": b"a", b"content-length": b"10", b"x-request-id": b"abc"}


class Lines:
    """A log that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[dict[str, object]] = []

    def put(self, line: bytes) -> None:
        self.lines.append(json.loads(line))


def make_refusals(
    access: Access | None = None, metrics: Metrics | None = None, log: Lines | None = None, state: State = "ready"
) -> EarlyRefusals:
    readiness = Readiness(state)
    return EarlyRefusals(
        retry_after_s=lambda: 2,
        readiness=readiness,
        routes=ROUTES,
        bodies=BODIES,
        access=access or Access(),
        metrics=metrics or Metrics(),
        request_log=None if log is None else AccessLog(log, as_json),  # type: ignore[arg-type]
    )


def parsed(response: bytes | None) -> tuple[bytes, dict[str, str], bytes]:
    assert response is not None
    head, _, body = response.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.decode().split(": ", 1) for line in lines)
    assert int(headers["content-length"]) == len(body)
    assert len(headers) == len(lines)
    return status, headers, body


async def of_admission(path: str, headers: dict[bytes, bytes], access: Access) -> Client:
    readiness = Readiness("ready")

    def refuse(_: float) -> None:
        raise Overloaded("Too many images are waiting; try again later.", retry_after_s=2)

    client = Client(b"0123456789")
    admission = Admission(
        lazy_app,
        readiness=readiness,
        metrics=Metrics(),
        routes=ROUTES,
        bodies=BODIES,
        check_capacity=refuse,
        upload_memory=UploadMemory(1000),
        access=access,
    )
    scope = {"type": "http", "method": "POST", "path": path, "headers": list(headers.items())}
    await admission(scope, client.receive, client.send)
    return client


TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("path", ["/classify", "/v2/models/resnet/infer"])
@pytest.mark.parametrize(
    "further",
    [{}, {b"origin": b"https://shop.example"}, {b"origin": b"https://other.example"}, {b"traceparent": TRACE}],
)
async def test_an_early_refusal_says_what_admission_says(path: str, further: dict[bytes, bytes]) -> None:
    access = make_access(None, frozenset(), None, "https://shop.example", None)
    headers = {**HEADERS, **further}
    expected = await of_admission(path, headers, access)
    response = make_refusals(access).response(path.encode(), headers, closes=False, fixed_lines=b"date: now\r\n")
    status, given, body = parsed(response)
    assert status == b"HTTP/1.1 503 Service Unavailable"
    assert body.decode() == expected.text
    assert given.pop("date") == "now"
    without_timing = {name: value for name, value in expected.headers.items() if name != "server-timing"}
    assert given == without_timing
    assert given["x-request-id"] == "abc"


async def test_a_connection_that_ends_is_announced() -> None:
    _, headers, _ = parsed(make_refusals().response(b"/classify", HEADERS, closes=True, fixed_lines=b""))
    assert headers["connection"] == "close"


async def test_an_unsafe_request_id_is_replaced() -> None:
    given = {**HEADERS, b"x-request-id": b"a b"}
    _, headers, _ = parsed(make_refusals().response(b"/classify", given, closes=False, fixed_lines=b""))
    assert len(headers["x-request-id"]) == 24


@pytest.mark.parametrize(
    ("target", "further"),
    [
        (b"/docs", {}),
        (b"/nothing", {}),
        (b"/classify", {b"content-length": b"1001"}),
        (b"/classify", {b"content-length": b"x"}),
        (b"/classify", {b"x-request-timeout-ms": b"0"}),
        (b"/classify", {b"x-request-timeout-ms": b"soon"}),
    ],
)
async def test_what_lacks_more_than_capacity_is_left_to_admission(target: bytes, further: dict[bytes, bytes]) -> None:
    refusals = make_refusals()
    assert refusals.response(target, {**HEADERS, **further}, closes=False, fixed_lines=b"") is None
    assert refusals.response(b"/classify?top_k=3", HEADERS, closes=False, fixed_lines=b"") is not None


async def test_keys_and_host_names_are_checked_before_capacity(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    secret = b"abcdefghijklmnopqrstuvwxyz0123456789"
    keys.write_text(f"someone {hashlib.sha256(secret).hexdigest()}\n")
    refusals = make_refusals(make_access(keys, frozenset(), "a", None, None))
    with_key = {**HEADERS, b"x-api-key": secret}

    def answers(headers: dict[bytes, bytes]) -> bool:
        return refusals.response(b"/classify", headers, closes=False, fixed_lines=b"") is not None

    assert [answers(HEADERS), answers({**with_key, b"host": b"b"}), answers(with_key)] == [False, False, True]


@pytest.mark.parametrize("state", ["starting", "broken", "draining"])
async def test_a_server_that_accepts_nothing_gives_its_own_reason(state: State) -> None:
    assert make_refusals(state=state).response(b"/classify", HEADERS, closes=False, fixed_lines=b"") is None


async def test_metrics_count_each_and_the_log_has_one_line() -> None:
    metrics, log = Metrics(), Lines()
    refusals = make_refusals(metrics=metrics, log=log)
    for _ in range(5):
        refusals.response(b"/classify", HEADERS, closes=False, fixed_lines=b"")
    assert log.lines == []
    refusals.write_log()
    refusals.write_log()
    (line,) = log.lines
    assert {name: line[name] for name in ("message", "route", "status", "code", "count")} == {
        "message": "requests refused",
        "route": "/classify",
        "status": 503,
        "code": "overloaded",
        "count": 5,
    }
    text = render(metrics.snapshot())
    assert b'resnet_requests_total{method="POST",route="/classify",status="503"} 5.0' in text
    assert b'resnet_refusals_total{code="overloaded"} 5.0' in text
