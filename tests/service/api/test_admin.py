"""The admin port: statistics, models in and out, and nothing else."""

import hashlib
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.access_control.admin_access import AdminAccess
from service.access_control.api_keys import ApiKeys
from service.api.admin import create_admin_app
from service.api.torchserve_management import Managed, WorkerFacts
from service.errors import ModelRefused, NotFound, NotReady
from service.http.readiness import Readiness
from service.model_files.repository import ModelFile, VersionState

pytestmark = pytest.mark.anyio


async def scrape() -> bytes:
    return b"everything 1.0\n"


async def change(action: str, name: str) -> list[VersionState]:
    if name == "bad":
        raise ModelRefused("bad:1 was refused: it hangs.")
    if name != "tiny":
        raise NotFound("There is no such model.", code="model_not_found")
    return [VersionState(name, "1", "READY" if action == "load" else "UNAVAILABLE")]


FILES = (
    ModelFile("cat", "2", Path("/secret/cat/2/model.onnx"), max_batch=32),
    ModelFile("tiny", "9", Path("/secret/tiny/9/model.onnx")),
    ModelFile("tiny", "10", Path("/secret/tiny/10/model.onnx"), max_batch=4),
)


def managed() -> Managed:
    return Managed(FILES, (WorkerFacts(0, 4711, True, 60.0), WorkerFacts(1, 4712, False, 0.0)))


OPEN = AdminAccess(None, is_local=True)
LOCKED = AdminAccess(ApiKeys({"ann": hashlib.sha256(b"secret").digest()}), is_local=False)


def admin_port(gate: AdminAccess) -> httpx.AsyncClient:
    app = create_admin_app(scrape, change, Readiness("ready"), gate, managed)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a")


@pytest.mark.parametrize("prefix", ["/admin/models", "/v2/repository/models"])
async def test_models_are_loaded_and_unloaded_in_both_dialects(prefix: str) -> None:
    async with admin_port(OPEN) as admin:
        answers = [await admin.post(f"{prefix}/tiny/{action}") for action in ("load", "unload")]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert (await admin.post(f"{prefix}/bad/load")).status_code == 409
        assert (await admin.post(f"{prefix}/other/load")).status_code == 404
        assert (await admin.get(f"{prefix}/tiny/load")).status_code == 405


async def test_a_load_says_how_each_version_is() -> None:
    async with admin_port(OPEN) as admin:
        answer = await admin.post("/admin/models/tiny/load")
        assert answer.json() == {"versions": [{"name": "tiny", "version": "1", "state": "READY", "reason": ""}]}
        refused = (await admin.post("/admin/models/bad/load")).json()
        assert (refused["code"], refused["detail"]) == ("model_refused", "bad:1 was refused: it hangs.")


@pytest.mark.parametrize("prefix", ["/admin/models", "/v2/repository/models"])
@pytest.mark.parametrize("name", ["config", "file:1/model.onnx"])
async def test_loaded_models_come_from_the_folder_only(prefix: str, name: str) -> None:
    async with admin_port(OPEN) as admin:
        answer = await admin.post(f"{prefix}/tiny/load", json={"parameters": {name: "x"}})
        assert answer.status_code == 400
        assert (await admin.post(f"{prefix}/tiny/load", content=b"x" * 100_000)).status_code == 413


@pytest.mark.parametrize(
    ("gate", "headers", "status"),
    [
        (OPEN, {}, 200),
        (AdminAccess(None, is_local=False), {}, 403),
        (LOCKED, {}, 401),
        (LOCKED, {"authorization": "Bearer wrong"}, 401),
        (LOCKED, {"authorization": "Bearer secret"}, 200),
        (LOCKED, {"x-api-key": "secret"}, 200),
    ],
)
async def test_models_change_only_for_who_may(gate: AdminAccess, headers: dict[str, Any], status: int) -> None:
    async with admin_port(gate) as admin:
        assert (await admin.get("/metrics")).status_code == 200
        for path in ("/admin/models/tiny/load", "/v2/repository/models/tiny/unload"):
            assert (await admin.post(path, headers=headers)).status_code == status


async def test_models_are_listed_as_torchserve_does() -> None:
    async with admin_port(LOCKED) as admin:
        cat = {"modelName": "cat", "modelUrl": "cat/2/model.onnx"}
        tiny = {"modelName": "tiny", "modelUrl": "tiny/10/model.onnx"}
        assert (await admin.get("/models")).json() == {"models": [cat, tiny]}
        assert (await admin.get("/models?limit=1")).json() == {"nextPageToken": "1", "models": [cat]}
        assert (await admin.get("/models?limit=1&next_page_token=1")).json() == {"models": [tiny]}
        assert (await admin.head("/models")).status_code == 200
        for query in ("limit=0", "limit=x", "limit=-1", "limit=²", "next_page_token=9999999", "limit=" + "9" * 5000):
            answer = await admin.get(f"/models?{query}")
            assert (answer.status_code, answer.json()["type"]) == (400, "BadRequestException")


async def test_a_model_is_described_as_torchserve_does() -> None:
    async with admin_port(OPEN) as admin:
        (found,) = (await admin.get("/models/tiny")).json()
        workers = found.pop("workers")
        assert found == {
            "modelName": "tiny",
            "modelVersion": "10",
            "modelUrl": "tiny/10/model.onnx",
            "runtime": "onnxruntime",
            "minWorkers": 2,
            "maxWorkers": 2,
            "batchSize": 4,
            "maxBatchDelay": 0,
            "loadedAtStartup": True,
        }
        assert [(each["id"], each["pid"], each["status"]) for each in workers] == [
            ("0", 4711, "READY"),
            ("1", 4712, "LOADING"),
        ]
        assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", workers[0]["startTime"])
        for version, expected in (("9", ["9"]), ("9.0", ["9"]), ("all", ["9", "10"])):
            described = (await admin.get(f"/models/tiny/{version}")).json()
            assert [each["modelVersion"] for each in described] == expected


async def test_an_unknown_model_and_a_change_are_refused_in_torchserves_listing() -> None:
    async with admin_port(OPEN) as admin:
        for path in ("/models/other", "/models/tiny/8", "/models/tiny/x"):
            answer = await admin.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, 404)
            assert answer.json()["type"] == "ModelNotFoundException"
        for method, path in (("POST", "/models?url=x.mar"), ("PUT", "/models/tiny"), ("DELETE", "/models/tiny/9")):
            answer = await admin.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


async def test_the_listing_waits_for_the_first_models() -> None:
    def not_ready() -> Managed:
        raise NotReady("The server is still loading its models; try again soon.", retry_after_s=1)

    app = create_admin_app(scrape, change, Readiness("starting"), OPEN, not_ready)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as admin:
        answer = await admin.get("/models")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["type"] == "ServiceUnavailableException"


PATHS = (("GET", "/metrics"), ("POST", "/admin/models/tiny/load"), ("POST", "/v2/repository/models/tiny/unload"))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "same-origin"},  # a rebound name: this port has no pages of its own
    ],
)
@pytest.mark.parametrize("gate", [OPEN, LOCKED])
async def test_pages_in_a_browser_are_refused_on_every_path(gate: AdminAccess, headers: dict[str, str]) -> None:
    async with admin_port(gate) as admin:
        for method, path in PATHS:
            answer = await admin.request(method, path, headers={"x-api-key": "secret", **headers})
            assert (answer.status_code, answer.text.count("Pages in a browser may not")) == (403, 1)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1:8001", "[::1]:8001", "[::1]", "10.1.2.3", "localhost", "LOCALHOST:8001", "resnet:8001"),
        *("a.localhost", "resnet.shop.svc.cluster.local", "vm-1.internal", "metrics.example.org", "x.example.com"),
    ],
)
async def test_addresses_private_names_and_trusted_names_reach_the_admin_port(host: str) -> None:
    gate = AdminAccess(None, is_local=True, hosts=("metrics.example.org", "*.example.com"))
    async with admin_port(gate) as admin:
        for method, path in PATHS:
            assert (await admin.request(method, path, headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["attacker.example", "attacker.example:8001", "127.0.0.1.attacker.example", "localhost.example", "1.2.3", "a.b:x"],
)
async def test_a_name_of_the_public_dns_is_refused_on_every_path(host: str) -> None:
    async with admin_port(OPEN) as admin:
        for method, path in PATHS:
            answer = await admin.request(method, path, headers={"host": host})
            assert answer.status_code == 400
            assert "this host name" in answer.text and host not in answer.text


async def test_the_admin_port_has_metrics_and_nothing_else() -> None:
    async with admin_port(OPEN) as admin:
        answer = await admin.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert answer.text == "everything 1.0\n"
        assert (await admin.head("/metrics")).status_code == 200
        for path in ("/", "/classify", "/docs", "/health/ready", "/metrics/"):
            answer = await admin.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        for content in (b"", b"x"):
            answer = await admin.post("/metrics", content=content)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
            assert (await admin.post("/nothing", content=content)).status_code == 404
