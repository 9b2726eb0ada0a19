"""Health, models, the page, the documents: what operators and browsers get."""

import base64
import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import orjson
import pytest
from fastapi import FastAPI

from service.api import pages
from service.api.openapi.compatibility_paths import compatibility_paths
from service.api.openapi.failures import FAILURES
from service.app import create_app
from service.settings import Settings
from tests.service.conftest import client_of
from tests.support.model_files.graph_files import graph_file, write_graph_file
from tests.support.model_files.tiny_model import LABELS, write_tiny_model

pytestmark = pytest.mark.anyio

PAGES = ["/", "/docs"]
MODEL_TEMPLATES = ["/models/{name}", "/models/{name}/versions/{version}"]
MODEL_PATHS = ["/models", "/models/tiny", "/models/tiny/versions/1"]
SWAGGER_UI = ["/swagger-ui/swagger-ui-bundle.js", "/swagger-ui/swagger-ui.css"]
WEB = Path(pages.__file__).parents[1] / "web"
PAGE_FILES = [
    f"/{path.relative_to(WEB).as_posix()}"
    for path in sorted(WEB.rglob("*.*"))
    if path.suffix in (".js", ".css", ".jpg")
]
PATHS = [*PAGES, *PAGE_FILES, *MODEL_PATHS, "/health/live", "/health/ready", "/openapi.json"]


async def test_a_started_server_is_live_and_ready(client: httpx.AsyncClient) -> None:
    assert (await client.get("/health/live")).json() == {"status": "live"}
    ready = (await client.get("/health/ready")).json()
    assert ready["status"] == "ready"
    assert ready["models"][0]["provider"] == "CPUExecutionProvider"


async def test_a_draining_server_is_live_but_not_ready_and_still_answers(
    app: FastAPI, client: httpx.AsyncClient, red: bytes
) -> None:
    app.state.components.readiness.start_draining()
    assert (await client.get("/health/live")).status_code == 200
    refused = await client.get("/health/ready")
    assert (refused.status_code, refused.json()["code"]) == (503, "draining")
    assert int(refused.headers["retry-after"]) > 0
    answer = await client.post("/classify", content=red)
    assert answer.status_code == 200
    assert answer.headers["connection"] == "close"


async def test_a_starting_server_is_live_but_neither_ready_nor_working(
    app: FastAPI, client: httpx.AsyncClient, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.state.components.readiness, "_state", "starting")
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


async def test_the_limits_on_an_image_come_with_the_models(client: httpx.AsyncClient) -> None:
    limits = {"max_image_bytes": 100_000, "max_pixels": 26_000_000, "max_side": 12_000}
    assert (await client.get("/models")).json()["limits"] == limits


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
    images, models = {"/classify", "/classify/batch", "/explain", "/embed"}, {"/models", *MODEL_TEMPLATES}
    ours = {path for path in document["paths"] if not path.startswith("/v2")}
    assert ours == {*images, *models, *compatibility_paths(), "/health/live", "/health/ready"}
    operation = document["paths"]["/classify"]["post"]
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert names == {"top_k", "model", "X-Request-Timeout-Ms", "X-Request-Id", "traceparent"}
    assert {"multipart/form-data", "image/jpeg", "image/png", "image/webp"} <= set(operation["requestBody"]["content"])
    for promise in (
        "detected from the bytes",
        "Unknown query parameters are ignored",
        "the last value of a repeated one counts",
    ):
        assert promise in operation["description"]
    assert set(operation["responses"]) == {"200", *map(str, FAILURES)} - {"406"}
    for path in images:
        operation = document["paths"][path]["post"]
        assert "example" in operation["responses"]["200"]["content"]["application/json"]
        assert {"X-Request-Id", "Server-Timing"} == set(operation["responses"]["200"]["headers"])
        for status, answer in operation["responses"].items():
            if status != "200":
                (content,) = answer["content"].values()
                codes = re.search(r"Codes: (.*)\.$", answer["description"])
                assert codes is not None
                assert list(content["examples"]) == codes[1].split(", ")
    assert "label_not_in_top" in document["paths"]["/explain"]["post"]["responses"]["422"]["description"]


async def test_every_reference_in_the_documents_leads_somewhere(client: httpx.AsyncClient) -> None:
    answer = await client.get("/openapi.json")
    for reference in re.findall(r'"\$ref":"#/([^"]+)"', answer.text):
        place = answer.json()
        for step in reference.split("/"):
            place = place[step]


def operations(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [operation for item in document["paths"].values() for operation in item.values()]


async def test_every_operation_has_a_name_that_a_generated_client_can_use(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    names = [operation["operationId"] for operation in operations(document)]
    assert len(set(names)) == len(names)
    assert {"classify", "list_models", "get_model", "get_model_version", "v2_infer"} <= set(names)
    assert all(re.fullmatch("[a-z][a-z0-9]*(_[a-z0-9]+)*", name) for name in names), names


async def test_every_json_answer_has_a_schema_with_a_name(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    for operation in operations(document):
        for status, answer in operation["responses"].items():
            for kind, content in answer["content"].items():
                if kind.endswith("json"):
                    assert "$ref" in content["schema"], (operation["operationId"], status)


async def test_every_example_in_the_documents_fits_its_schema(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    answers = [answer for operation in operations(document) for answer in operation["responses"].values()]
    bodies = [operation["requestBody"] for operation in operations(document) if "requestBody" in operation]
    contents = [content for part in (*answers, *bodies) for content in part["content"].values()]
    examples = [(content["schema"], content["example"]) for content in contents if "example" in content]
    examples += [
        (content["schema"], example["value"])
        for content in contents
        for example in content.get("examples", {}).values()
    ]
    assert len(examples) > 200
    for schema, example in examples:
        check(document, schema, example)


async def test_examples_of_failures_are_what_clients_get(client: httpx.AsyncClient, red: bytes) -> None:
    document = (await client.get("/openapi.json")).json()
    for path, content, query in (
        ("/classify", red, "top_k=0"),
        ("/classify", red, "model=none"),
        ("/classify", b"no image", ""),
        ("/classify", red[: len(red) // 2], ""),
        ("/classify", b"", ""),
        ("/classify/batch", b"[]", ""),
        ("/explain", red, "index=x"),
        ("/embed", red, "normalize=2"),
    ):
        answer = await client.post(f"{path}?{query}", content=content)
        responses = document["paths"][path]["post"]["responses"]
        examples = responses[str(answer.status_code)]["content"]["application/problem+json"]["examples"]
        example = examples[answer.json()["code"]]["value"]
        assert {**example, "detail": ""} == {**answer.json(), "detail": ""}
        assert example["detail"].split()[0] == answer.json()["detail"].split()[0]


def check(document: dict[str, Any], schema: dict[str, Any], instance: Any) -> None:
    whole = {**schema, "components": document["components"]}
    jsonschema_rs.validate(whole, instance)


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        *(("POST", path, path) for path in ("/classify", "/classify/batch", "/explain", "/embed")),
        *(("GET", path, path) for path in ("/models", "/health/live", "/health/ready", "/v2", "/v2/models/stats")),
        ("GET", "/models/tiny", "/models/{name}"),
        ("GET", "/models/tiny/versions/1", "/models/{name}/versions/{version}"),
        ("GET", "/models/minus", "/models/{name}"),
        *(
            ("GET", f"/v2/models/tiny{end}", f"/v2/models/{{model}}{end}")
            for end in ("", "/config", "/ready", "/stats")
        ),
        ("GET", "/v2/models/minus/config", "/v2/models/{model}/config"),
        ("POST", "/v2/repository/index", "/v2/repository/index"),
        ("POST", "/v2/models/tiny/infer", "/v2/models/{model}/infer"),
    ],
)
async def test_real_answers_are_as_documented(
    tmp_path: Path, model_file: bytes, red: bytes, method: str, path: str, template: str
) -> None:
    write_tiny_model(tmp_path, content=model_file)
    write_graph_file(tmp_path, "minus", graph_file())  # a model without a card
    images = [base64.b64encode(content).decode() for content in (red, b"no image")]
    bodies = {
        "/classify/batch": orjson.dumps({"images": images}),
        "/v2/repository/index": b"",
        "/v2/models/tiny/infer": orjson.dumps(
            {"id": "1", "inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": images[:1]}]}
        ),
    }
    app = create_app(Settings(models=tmp_path, default_model="tiny", engine_threads=1))
    async with client_of(app) as client:
        document = (await client.get("/openapi.json")).json()
        answer = await client.request(method, path, content=bodies.get(path, red if method == "POST" else None))
        documented = document["paths"][template][method.lower()]["responses"]["200"]["content"]
        assert answer.status_code == 200
        check(document, documented["application/json"]["schema"], answer.json())


async def test_every_code_is_explained_where_its_type_leads(client: httpx.AsyncClient) -> None:
    page = (await client.get("/docs")).text
    for failure in FAILURES.values():
        for code in failure.codes:
            assert f'id="{code}"' in page


@pytest.mark.parametrize("path", SWAGGER_UI)
async def test_a_browser_fetches_swagger_ui_once_and_compressed(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(path, headers={"accept-encoding": "gzip"})
    file = Path(pages.__file__).parents[1] / "web" / path[1:]
    assert answer.content == file.read_bytes()
    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "Accept-Encoding"
    again = await client.get(path, headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content, again.headers["cache-control"]) == (304, b"", "no-cache")
    plain = await client.get(path, headers={"accept-encoding": "identity"})
    assert plain.content == answer.content
    assert int(plain.headers["content-length"]) > 3 * answer.num_bytes_downloaded


@pytest.mark.parametrize("name", ["LICENSE.txt", "NOTICE.txt", "swagger-ui-bundle.js.LICENSE.txt"])
async def test_the_licenses_of_swagger_ui_are_served_beside_it(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/swagger-ui/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    "path",
    [
        "/swagger-ui/",
        "/swagger-ui/../index.html",
        "/swagger-ui/%2e%2e/style.css",
        "/nothing",
        "/classify/",
        "//",
        "/docs/",
        "/../etc/passwd",
        "/metrics",
        "/index.html",
    ],
)
async def test_an_unknown_path_is_a_problem_document(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.get(httpx.URL("http://service", raw_path=path.encode()))
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "not_found"
