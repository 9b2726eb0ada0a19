"""The admin port: statistics, and nothing else."""

import httpx
import pytest

from service.admin import create_admin_app

pytestmark = pytest.mark.anyio


async def scrape() -> bytes:
    return b"everything 1.0\n"


async def test_the_admin_port_has_metrics_and_nothing_else() -> None:
    app = create_admin_app(scrape)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as admin:
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
