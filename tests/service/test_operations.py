"""Health, models, the page, the documents: what operators and browsers get."""

import re

import httpx
import pytest
from fastapi import FastAPI

from service.api.failures import FAILURES
from tests.service.tiny_model import LABELS

pytestmark = pytest.mark.anyio

PAGES = ["/", "/docs"]
MODEL_TEMPLATES = ["/models/{name}", "/models/{name}/versions/{version}"]
MODEL_PATHS = ["/models", "/models/tiny", "/models/tiny/versions/1"]
PATHS = [*PAGES, "/app.js", "/style.css", "/docs.css", *MODEL_PATHS, "/health/live", "/health/ready", "/openapi.json"]


async def test_a_started_server_is_live_and_ready(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/live")).json() == {"status": "live"}
    ready = (await client.get("/health/ready")).json()
    assert ready["status"] == "ready"
    assert ready["models"][0]["provider"] == "CPUExecutionProvider"


async def test_a_draining_server_is_live_but_not_ready_and_still_answers(
    app: FastAPI, client: httpx.AsyncClient, red: bytes
) -> None:
    app.state.parts.readiness.state = "draining"
    assert (await client.get("/health/live")).status_code == 200
    refused = await client.get("/health/ready")
    assert (refused.status_code, refused.json()["code"]) == (503, "draining")
    assert int(refused.headers["retry-after"]) > 0
    answer = await client.post("/classify", content=red)
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"


async def test_a_starting_server_is_live_but_neither_ready_nor_working(
    app: FastAPI, client: httpx.AsyncClient, red: bytes
) -> None:
    app.state.parts.readiness.state = "starting"
    assert (await client.get("/health/live")).status_code == 200
    for refused in (
        await client.get("/health/ready"),
        await client.get("/models"),
        await client.post("/classify", content=red),
    ):
        assert (refused.status_code, refused.json()["code"]) == (503, "not_ready")
        assert int(refused.headers["retry-after"]) > 0


async def test_models_are_listed_with_what_their_cards_say(client: httpx.AsyncClient) -> None:
    (model,) = (await client.get("/models")).json()["models"]
    assert (model["name"], model["version"], model["default"]) == ("tiny", "1", True)
    assert model["labels"] == list(LABELS)
    assert model["preprocessing"]["crop"] == [8, 8]
    assert model["precision"] == "fp32"
    assert model["variant"] == {"shortcut": None, "stride_in": None}
    assert model["parity"]["images"] == 1
    assert model["provenance"]["created"] == "2026-01-01T00:00:00Z"
    assert re.fullmatch("[0-9a-f]{64}", model["sha256"])
    assert (model["state"], model["reason"]) == ("READY", "")
    assert (await client.get("/models/tiny/versions/1")).json() == model
    versions = [{"version": "1", "state": "READY", "reason": ""}]
    assert (await client.get("/models/tiny")).json() == {**model, "versions": versions}


@pytest.mark.parametrize("path", ["/models/other", "/models/tiny/versions/2", "/models/tiny/versions/x", "/models/%00"])
async def test_a_model_that_is_not_there_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", PATHS)
async def test_whatever_can_be_fetched_has_a_head(client: httpx.AsyncClient, path: str) -> None:
    answer, head = await client.get(path), await client.head(path)
    assert answer.status_code == head.status_code == 200
    assert answer.headers["content-type"] == head.headers["content-type"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] in ("no-store", "no-cache")


@pytest.mark.parametrize("path", [path for path in PATHS if path != "/openapi.json"])
async def test_what_can_only_be_fetched_says_so(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_works_without_any_other_host(client: httpx.AsyncClient, page: str) -> None:
    answer = await client.get(page)
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    for asset in re.findall(r'(?:src|href)="([^"]*)"', answer.text):
        assert asset.startswith(("/", "#", "data:")) and not asset.startswith("//"), asset


@pytest.mark.parametrize("page", PAGES)
async def test_a_page_links_to_nothing_that_is_missing(client: httpx.AsyncClient, page: str) -> None:
    answer = await client.get(page)
    for asset in re.findall(r'(?:src|href)="(/[^"]*)"', answer.text):
        assert (await client.get(asset)).status_code == 200, asset


async def test_the_documents_have_the_hot_route_too(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    pictures, models = {"/classify", "/classify/batch", "/explain", "/embed"}, {"/models", *MODEL_TEMPLATES}
    ours = {path for path in document["paths"] if not path.startswith("/v2")}
    assert ours == {*pictures, *models, "/health/live", "/health/ready"}
    operation = document["paths"]["/classify"]["post"]
    assert {parameter["name"] for parameter in operation["parameters"]} == {"top_k", "model", "X-Request-Timeout-Ms"}
    assert {"multipart/form-data", "image/jpeg", "image/png", "image/webp"} <= set(operation["requestBody"]["content"])
    for promise in ("whatever its content type says", "Unknown query parameters are ignored", "the last counts"):
        assert promise in operation["description"]
    assert set(operation["responses"]) == {"200", *map(str, FAILURES)} - {"406"}
    for path in pictures:
        operation = document["paths"][path]["post"]
        assert "example" in operation["responses"]["200"]["content"]["application/json"]
        assert {"X-Request-Id", "Server-Timing"} == set(operation["responses"]["200"]["headers"])
    assert "label_not_in_top" in document["paths"]["/explain"]["post"]["responses"]["422"]["description"]


async def test_every_reference_in_the_documents_leads_somewhere(client: httpx.AsyncClient) -> None:
    answer = await client.get("/openapi.json")
    for reference in re.findall(r'"\$ref":"#/([^"]+)"', answer.text):
        place = answer.json()
        for step in reference.split("/"):
            place = place[step]


async def test_the_real_answer_is_as_documented(client: httpx.AsyncClient, red: bytes) -> None:
    schema = (await client.get("/openapi.json")).json()["components"]["schemas"]["Classification"]
    answer = (await client.post("/classify", content=red)).json()
    assert set(answer) == set(schema["required"])
    for part in ("model", "image", "timings_ms"):
        assert set(answer[part]) == set(schema["properties"][part]["properties"])


async def test_every_code_is_explained_where_its_type_leads(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    for _, codes in FAILURES.values():
        for code in codes:
            assert f'id="{code}"' in page


@pytest.mark.parametrize(
    "path", ["/nothing", "/classify/", "//", "/docs/", "/../etc/passwd", "/metrics", "/index.html"]
)
async def test_an_unknown_path_is_a_problem_document(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(httpx.URL("http://service", raw_path=path.encode()))
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"
