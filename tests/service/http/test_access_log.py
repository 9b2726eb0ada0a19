"""The lines of the log: one a request, with what happened, and nothing that a client made up."""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.app import create_app
from service.http.access_log import AccessLog, LogHandler, as_json, as_text
from service.settings import Settings
from service.telemetry.log_writer import LogWriter
from tests.service.conftest import client_of

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Log:
    def __init__(self) -> None:
        self._reader, descriptor = os.pipe()
        self.writer = LogWriter(descriptor)

    def text(self) -> str:
        self.writer.flush()
        return os.read(self._reader, 1_000_000).decode()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    return Log()


@pytest.fixture
async def logged(models: Path, log: Log) -> Any:
    settings = Settings(models=models, engine_threads=1, trusted_proxies="127.0.0.0/8")
    async with client_of(create_app(settings, request_log=AccessLog(log.writer, as_json))) as client:
        yield client


@pytest.mark.anyio
async def test_a_request_is_one_line_that_says_what_happened(logged: httpx.AsyncClient, log: Log, red: bytes) -> None:
    headers = {"x-request-id": "abc-1", "traceparent": TRACE}
    answer = await logged.post("/classify?model=tiny", files={"file": ("secret-name.jpg", red)}, headers=headers)
    assert (answer.headers["x-request-id"], answer.headers["traceparent"]) == ("abc-1", TRACE)
    (line,) = log.lines()
    assert line["time"].endswith("Z")
    assert (line["level"], line["message"], line["method"], line["route"]) == ("INFO", "request", "POST", "/classify")
    assert (line["status"], line["pictures"], line["model"]) == (200, 1, "tiny:1")
    assert (line["request_id"], line["traceparent"], line["client"]) == ("abc-1", TRACE, "127.0.0.1")
    assert line["model_sha256"] == answer.json()["model"]["sha256"]
    assert line["bytes_in"] > len(red)
    assert line["bytes_out"] == len(answer.content)
    assert line["total_ms"] >= line["inference_ms"] >= 0
    assert {"decode_ms", "queue_ms"} <= set(line)
    assert "draw_ms" not in line


@pytest.mark.anyio
async def test_the_line_of_a_heat_map_says_what_drawing_took(logged: httpx.AsyncClient, log: Log, red: bytes) -> None:
    await logged.post("/explain", content=red, headers={"accept": "image/png"})
    (line,) = log.lines()
    assert 0 < line["draw_ms"] < line["total_ms"]


@pytest.mark.anyio
async def test_nothing_that_a_client_makes_up_is_in_the_log(logged: httpx.AsyncClient, log: Log, red: bytes) -> None:
    evil = "evil"
    await logged.get(f"/{evil}/path?{evil}=1")
    await logged.request("EVIL", "/classify", headers={"x-request-id": f"{evil} id", "user-agent": evil})
    await logged.post(f"/classify?model={evil}", files={"file": (f"{evil}.jpg", red)}, headers={"traceparent": evil})
    await logged.get(f"/models/{evil}/versions/{evil}", headers={"x-forwarded-for": evil})
    text = log.text()
    assert evil not in text.lower()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["route"] for line in lines] == ["other", "/classify", "/classify", "/models/{name}/versions/{version}"]
    assert [line["status"] for line in lines] == [404, 405, 404, 404]
    assert [line["method"] for line in lines] == ["GET", "other", "POST", "GET"]
    assert lines[2]["code"] == "model_not_found"


@pytest.mark.anyio
async def test_what_a_trusted_proxy_says_of_its_client_is_logged(logged: httpx.AsyncClient, log: Log) -> None:
    await logged.get("/models", headers={"x-forwarded-for": "198.51.100.7, 203.0.113.9, 127.0.0.2"})
    assert log.lines()[0]["client"] == "203.0.113.9"


@pytest.mark.anyio
@pytest.mark.parametrize(
    "path",
    ["/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready", "/v2/models/tiny/ready",
     "/v2/models/tiny/versions/1/ready"],
)  # fmt: skip
async def test_a_health_check_is_no_line(logged: httpx.AsyncClient, log: Log, path: str) -> None:
    for request in (logged.get, logged.head):
        assert (await request(path)).status_code == 200
    assert (await logged.get("/models")).status_code == 200
    assert [line["route"] for line in log.lines()] == ["/models"]


@pytest.mark.anyio
async def test_a_health_check_of_a_server_that_is_not_ready_is_no_line_either(models: Path, log: Log) -> None:
    app = create_app(Settings(models=models, engine_threads=1), request_log=AccessLog(log.writer, as_json))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        for path in ("/health/ready", "/v2/health/ready"):
            assert (await client.get(path)).status_code == 503
        assert (await client.get("/metrics")).status_code == 404
    assert [line["status"] for line in log.lines()] == [404]


@pytest.mark.anyio
async def test_a_health_check_that_is_wrong_is_a_line(logged: httpx.AsyncClient, log: Log) -> None:
    await logged.post("/health/live")
    await logged.get("/v2/models/none/ready")
    statuses = [line["status"] for line in log.lines()]
    assert statuses[0] == 405
    assert statuses[1] in (400, 404)


@pytest.mark.parametrize("form", [as_json, as_text])
def test_what_the_server_itself_says_goes_the_same_way(log: Log, form: Any) -> None:
    logger = logging.Logger("own")
    logger.addHandler(LogHandler(log.writer, form))
    logger.warning("listening on %s", "http://a:1")
    try:
        raise ValueError("inside")
    except ValueError:
        logger.exception("failed")
    first, rest = log.text().split("\n", 1)
    assert "listening on http://a:1" in first and "WARNING" in first
    assert "Traceback" in rest and "ValueError: inside" in rest
    assert len(rest.splitlines()) == 1 or form is as_text


def test_lines_that_wait_take_no_more_memory_than_their_text() -> None:
    program = (
        "import re; from service.http.access_log import as_json\n"
        "kib = lambda: int(re.search(r'VmRSS:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "line = {'time': '2026-11-28T10:59:04.965Z', 'request_id': '0' * 24, 'model_sha256': '1' * 64}\n"
        "before = kib(); lines = [as_json(line) for _ in range(8192)]; print(kib() - before)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 8192  # a kibibyte each; they have 150 bytes
