"""The application as a whole: failures nobody expected, overload, statistics, and a start that fails."""

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request

from service.api.endpoints.inference import InferenceService
from service.app import create_app
from service.batching.batcher import Batcher
from service.batching.load_shedding import QueueLimits
from service.engine.engine import Engine
from service.errors import ServiceError
from service.http_server.overload import OverloadControl
from service.images.preprocessing import usual_resizer
from service.inference.classifier import Classifier
from service.model_files.card import METADATA_KEY
from service.model_files.repository import ModelRepositoryError
from service.settings import Settings
from service.system.shared_counters import SharedLoad
from service.telemetry.prometheus import render
from tests.service.conftest import client_of, image
from tests.service.http_server.test_connection import connected, next_answer
from tests.support.model_files.tiny_model import tiny_model, write_tiny_model

pytestmark = pytest.mark.anyio


def scraped(app: FastAPI) -> str:
    return render(app.state.components.metrics.snapshot()).decode()


async def test_an_unexpected_failure_is_logged_and_not_shown_to_the_client(
    app: FastAPI,
    client: httpx.AsyncClient,
    red: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret at 0xdeadbeef in /etc")

    monkeypatch.setattr(InferenceService, "classify", broken)
    answer = await client.post("/classify", content=red)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "internal_error"
    assert "secret" not in answer.text
    assert "secret at 0xdeadbeef" in caplog.text
    assert app.state.components.metrics.in_flight == 0


async def test_a_broken_model_is_an_answer_and_the_next_request_works(
    client: httpx.AsyncClient, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> list[ServiceError]:
        raise RuntimeError("broken")

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "answer_batch", broken)
        answer = await client.post("/classify", content=red)
    assert (answer.status_code, answer.json()["code"]) == (500, "engine_failed")
    assert (await client.post("/classify", content=red)).status_code == 200


async def test_parameters_that_fastapi_itself_refuses_are_problem_documents_without_the_input(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    async def number(value: int) -> int:
        return value

    app.add_api_route("/number", number)
    answer = await client.get("/number?value=<script>")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "script" not in answer.text


async def test_half_an_answer_is_not_followed_by_another(app: FastAPI, client: httpx.AsyncClient) -> None:
    async def half(request: Request) -> None:
        await request._send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half")

    app.add_route("/half", half)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="half"):
        await client.get("/half")


async def test_requests_show_up_in_the_statistics(app: FastAPI, client: httpx.AsyncClient, red: bytes) -> None:
    await client.post("/classify", content=red)
    await client.post("/classify", content=b"text")
    await client.get("/nothing")
    await client.get("/health/live")
    text = scraped(app)
    assert 'resnet_requests_total{method="POST",route="/classify",status="200"} 1.0' in text
    assert 'resnet_requests_total{method="POST",route="/classify",status="415"} 1.0' in text
    assert 'resnet_requests_total{method="GET",route="other",status="404"} 1.0' in text
    assert 'resnet_requests_total{method="GET",route="/health/live",status="200"} 1.0' in text
    assert 'resnet_refusals_total{code="not_an_image"} 1.0' in text
    assert 'resnet_pictures_total{format="JPEG"} 1.0' in text
    assert 'resnet_inference_seconds_count{model="tiny"} 1.0' in text
    assert "resnet_model_info{" in text


async def test_clients_cannot_make_more_series(app: FastAPI, client: httpx.AsyncClient) -> None:
    async def visit(number: int) -> None:
        await client.request(f"HACK{number}", f"/path{number}?model=m{number}")
        await client.post(f"/classify?model=m{number}", content=b"x")

    await visit(0)
    before = len(scraped(app).splitlines())
    for number in range(1, 30):
        await visit(number)
    assert len(scraped(app).splitlines()) == before


async def test_a_full_queue_refuses_from_the_headers(models: Path, red: bytes) -> None:
    app = create_app(Settings(models=models, max_queue=1, engine_threads=1))
    shared_load = SharedLoad(2)
    shared_load.write(1, waiting=1, outstanding=1)
    full = Batcher(QueueLimits(1, 1), shared_load=shared_load)
    async with app.router.lifespan_context(app):
        admission = next(layer for layer in app.user_middleware if layer.cls.__name__ == "Admission")
        admission.kwargs["check_capacity"] = full.check_capacity
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
            answer = await client.post("/classify", content=red)
            assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
            assert answer.headers["retry-after"] in ("1", "2", "3")
            assert (await client.get("/health/ready")).status_code == 200


async def test_a_client_that_repeats_an_impossible_deadline_at_once_is_delayed(app: FastAPI, red: bytes) -> None:
    batcher = app.state.components.batcher
    batcher._load_shedder._seconds_per_batch, batcher._queue.running = 3.0, 1
    request = b"POST /classify HTTP/1.1\r\nHost: a\r\nX-Request-Timeout-Ms: 100\r\nContent-Length: %d\r\n\r\n%b"
    try:
        async with connected(app, overload=OverloadControl(batcher.has_capacity, immediate_retry_s=5.0)) as (
            reader,
            writer,
        ):
            started = time.monotonic()
            for _ in range(2):
                writer.write(request % (len(red), red))
                status, body = await next_answer(reader)
                assert (status, json.loads(body)["code"]) == (503, "cannot_make_it")
            assert time.monotonic() - started > 0.19
    finally:
        batcher._queue.running = 0


async def test_a_start_without_models_fails_with_one_line(tmp_path: Path) -> None:
    app = create_app(Settings(models=tmp_path))
    with pytest.raises(ModelRepositoryError, match="there is no model"):
        async with app.router.lifespan_context(app):
            raise AssertionError("it started")


async def test_no_answer_holds_an_address_a_path_or_a_librarys_words(client: httpx.AsyncClient, red: bytes) -> None:
    contents = [red[:n] for n in range(0, len(red), max(1, len(red) // 40))]
    contents += [image((1, 2, 3), kind)[:cut] for kind in ("PNG", "WEBP") for cut in range(8, 80, 4)]
    for content in contents:
        answer = await client.post("/classify", content=content)
        assert answer.status_code == 200 or 400 <= answer.status_code < 500
        detail = answer.json().get("detail", "")
        assert not re.search(r"0x[0-9a-f]{4,}|/[a-z]+/|Traceback|PIL|Pillow|onnx|Error|object at", detail), detail


@pytest.mark.parametrize(
    ("recorded", "is_said"), [(None, False), (usual_resizer(), False), ("cykooz-resizer", True)], ids=str
)
async def test_a_model_measured_with_another_resizer_serves_and_is_one_line_in_the_log(
    tmp_path: Path,
    red: bytes,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    recorded: str | None,
    is_said: bool,
) -> None:
    if is_said:
        monkeypatch.setattr("service.images.simd_resizing.rust", None)
    plain = card_of(tiny_model())["preprocessing"]
    card = {"preprocessing": plain | ({"resizer": recorded} if recorded else {})}
    write_tiny_model(tmp_path, content=tiny_model(card=card))
    with caplog.at_level("INFO"):
        async with client_of(create_app(Settings(models=tmp_path, engine_threads=1))) as client:
            assert (await client.post("/classify", content=red)).status_code == 200
    assert f"images are resized by {usual_resizer()}" in caplog.text
    assert caplog.text.count("was measured with images resized by cykooz-resizer; pillow is used here") == is_said


def card_of(model: bytes) -> dict[str, Any]:
    card: dict[str, Any] = json.loads(Engine(model).metadata[METADATA_KEY])
    return card
