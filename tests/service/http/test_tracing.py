"""Traces of requests to the whole application, as a collector on a socket receives them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from service.app import create_app
from service.http.tracing import BatchIds, ImageTimes, Traced, spans_of
from service.settings import Settings
from tests.service.conftest import client_of
from tests.support.servers.collector import CollectorServer

pytestmark = pytest.mark.anyio

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
STEPS = ["receive", "queue", "decode", "inference", "batch", "send"]


@asynccontextmanager
async def traced(
    models: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, CollectorServer, FastAPI]]:
    """A client of a started application, and the collector of its traces."""
    with CollectorServer() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{server.address}")
        app = create_app(Settings(models=models, engine_threads=1, **settings))
        async with client_of(app) as client:
            yield client, server, app


def attributes(span: dict[str, Any]) -> dict[str, Any]:
    return {one["key"]: next(iter(one["value"].values())) for one in span["attributes"]}


def interval(span: dict[str, Any]) -> tuple[int, int]:
    return int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])


async def test_a_request_with_the_flag_has_a_span_for_each_step(
    models: Path, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traced(models, monkeypatch) as (client, server, _):
        answer = await client.post("/classify", content=red, headers={**SAMPLED, "X-Request-Id": "abc"})
        assert answer.headers["traceparent"] == SAMPLED["traceparent"]
        root, *steps = await asyncio.to_thread(server.wait_for_spans, 7)
    assert (root["traceId"], root["parentSpanId"], root["name"], root["kind"]) == (TRACE, PARENT, "POST /classify", 2)
    assert [step["name"] for step in steps] == STEPS
    seen = attributes(root)
    assert (seen["http.route"], seen["http.response.status_code"], seen["resnet.request_id"]) == (
        "/classify",
        "200",
        "abc",
    )
    assert seen["http.request.body.size"] == str(len(red))
    assert seen["resnet.model"] == "tiny:1"
    own = [step for step in steps if step["name"] != "batch"]
    assert {(step["traceId"], step["parentSpanId"]) for step in own} == {(TRACE, root["spanId"])}
    assert all(interval(root)[0] <= start <= end <= interval(root)[1] for start, end in map(interval, own))
    assert len({step["spanId"] for step in steps} | {root["spanId"]}) == 7


async def test_the_images_of_one_batch_link_to_one_span(
    models: Path, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traced(models, monkeypatch) as (client, server, _):
        for _ in range(2):
            await client.post("/classify", content=red, headers=SAMPLED)
        spans = await asyncio.to_thread(server.wait_for_spans, 14)
    links = [span["links"] for span in spans if span["name"] == "inference"]
    batches = [{"traceId": span["traceId"], "spanId": span["spanId"]} for span in spans if span["name"] == "batch"]
    assert links == [[batch] for batch in batches]  # one after the other: two batches
    assert TRACE not in {batch["traceId"] for batch in batches}


@pytest.mark.parametrize("headers", [UNSAMPLED, {}, {"traceparent": "nonsense"}])
async def test_a_request_without_the_flag_has_no_trace(
    models: Path, red: bytes, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    async with traced(models, monkeypatch) as (client, server, app):
        assert (await client.post("/classify", content=red, headers=headers)).status_code == 200
        await client.post("/classify", content=red, headers=SAMPLED)
        spans = await asyncio.to_thread(server.wait_for_spans, 7)
        await asyncio.to_thread(app.state.components.tracer.exporter.flush)
    assert len(spans) == len(server.spans()) == 7


@pytest.mark.parametrize(("headers", "count"), [({}, 7), (UNSAMPLED, 0)])
async def test_the_ratio_is_for_requests_without_a_header_only(
    models: Path, red: bytes, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], count: int
) -> None:
    async with traced(models, monkeypatch, trace_ratio=1.0) as (client, server, app):
        await client.post("/classify", content=red, headers=headers)
        await asyncio.to_thread(app.state.components.tracer.exporter.flush)
        assert len(server.spans()) == count
    if count:
        root = server.spans()[0]
        assert root["parentSpanId"] == ""
        assert root["traceId"] not in (TRACE, "0" * 32)


async def test_a_failed_request_says_why_and_only_a_failure_of_the_server_is_an_error(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with traced(models, monkeypatch) as (client, server, _):
        assert (await client.post("/classify", content=b"no image", headers=SAMPLED)).status_code == 415
        root, receive = await asyncio.to_thread(server.wait_for_spans, 2)
    assert receive["name"] == "receive"
    assert attributes(root)["error.type"] == "not_an_image"
    assert "status" not in root


async def test_each_image_of_a_request_has_its_steps(models: Path, red: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [("file", ("a.jpg", red, "image/jpeg"))] * 3
    async with traced(models, monkeypatch) as (client, server, app):
        assert (await client.post("/classify/batch", files=files, headers=SAMPLED)).status_code == 200
        await asyncio.to_thread(app.state.components.tracer.exporter.flush)
        names = [span["name"] for span in server.spans()]
    assert [names.count(name) for name in ("POST /classify/batch", "inference", "decode", "send")] == [1, 3, 3, 1]
    assert attributes(server.spans()[0])["resnet.images"] == "3"


async def test_without_an_endpoint_nothing_is_made(models: Path) -> None:
    app = create_app(Settings(models=models, engine_threads=1, trace_ratio=1.0))
    assert app.state.components.tracer is None


async def test_the_metrics_count_dropped_traces(models: Path, red: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async with traced(models, monkeypatch) as (client, server, app):
        server.status = 503
        await client.post("/classify", content=red, headers=SAMPLED)
        await asyncio.to_thread(server.wait_for_exports, 1)
        await asyncio.to_thread(app.state.components.tracer.exporter.flush)
        assert app.state.components.metrics.snapshot()["counters"]["resnet_traces_dropped"] == [1]


def a_request(**changes: Any) -> Traced:
    image = ImageTimes(queue_s=1.0, decode_s=2.0, inference_s=3.0, batch_started_at=104.0, batch_size=5)
    facts: dict[str, Any] = {
        "traceparent": SAMPLED["traceparent"].encode(),
        "name": "POST /classify",
        "status": 200,
        "failure": None,
        "request_id": b"abc",
        "model": "tiny:1",
        "sizes": (10, 20),
        "started_at": 100.0,
        "received_at": 100.5,
        "ended_at": 108.0,
        "ended_ns": 1_000_000_000_000,
        "images": (image,),
    }
    return Traced(**facts | changes)


def test_monotonic_times_become_times_of_the_wall_clock() -> None:
    seconds = {
        span["name"]: (int(span["startTimeUnixNano"]) / 1e9, int(span["endTimeUnixNano"]) / 1e9)
        for span in spans_of(a_request(), BatchIds())
    }
    assert seconds == {
        "POST /classify": (992.0, 1000.0),
        "receive": (992.0, 992.5),
        "queue": (993.0, 994.0),
        "decode": (994.0, 996.0),
        "inference": (996.0, 999.0),
        "batch": (996.0, 999.0),
        "send": (999.0, 1000.0),
    }


def test_two_requests_of_a_batch_share_its_span() -> None:
    batches = BatchIds()
    spans = [span for _ in range(2) for span in spans_of(a_request(), batches)]
    (batch,) = [span for span in spans if span["name"] == "batch"]
    link = {"traceId": batch["traceId"], "spanId": batch["spanId"]}
    assert [span["links"] for span in spans if span["name"] == "inference"] == [[link], [link]]
    assert [one["value"] for one in batch["attributes"]] == [{"intValue": "5"}]


@pytest.mark.parametrize("status", [None, 500, 503])
def test_a_request_that_the_server_did_not_answer_is_an_error(status: int | None) -> None:
    assert next(spans_of(a_request(status=status, images=()), BatchIds()))["status"] == {"code": 2}
