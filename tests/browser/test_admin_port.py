"""Pages of other sites in a real browser: neither across sites nor by DNS rebinding do they reach the admin port.

After DNS rebinding, the requests of the attacker's page arrive at this server with the attacker's name in `Host`, and
count as the page's own site. A relay causes the same: it serves the page, and passes everything else on unchanged.
"""

import contextlib
import http.client
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import CHROMIUM, CHROMIUM_FLAGS
from tests.support.model_files.tiny_model import write_tiny_model
from tests.support.servers.served import Served, serving

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]

NAME = "attacker.example"
LOAD = "/admin/models/tiny/unload"
# What a page reads of a response, or the kind of error if it may not read it.
FETCH = """async ([url, options]) => {
  try { const r = await fetch(url, options); return r.type === "opaque" ? "opaque" : await r.text(); }
  catch (error) { return error.name; }
}"""


@dataclass
class Relay:
    """An attacker's server: a page, and a way to the admin port under the attacker's name."""

    port: int
    statuses: list[int] = field(default_factory=list)  # of the passed requests


@contextlib.contextmanager
def relaying(admin_port: int) -> Iterator[Relay]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/":
                self.reply(200, b"<!doctype html><title>attack</title>")
            elif self.path != "/favicon.ico":
                self.relay()

        def do_POST(self) -> None:
            self.relay()

        def relay(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", admin_port, timeout=20)) as connection:
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
            relay.statuses.append(answer.status)
            self.reply(answer.status, content)

        def reply(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    relay = Relay(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield relay
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    write_tiny_model(tmp_path)
    with serving(tmp_path, "--processes", "1") as served:
        yield served


@pytest.fixture
def relay(served: Served) -> Iterator[Relay]:
    with relaying(served.admin_port) as relay:
        yield relay


@pytest.fixture
def page(relay: Relay) -> Iterator[Any]:
    """The attacker's page, in a browser for which the attacker's name is this machine's address."""
    if not CHROMIUM.exists():
        pytest.skip("there is no Chromium")
    playwright = pytest.importorskip("playwright.sync_api").sync_playwright()
    with playwright as session:
        flags = [*CHROMIUM_FLAGS, f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]
        with contextlib.closing(session.chromium.launch(executable_path=str(CHROMIUM), args=flags)) as browser:
            page = browser.new_page()
            page.set_default_timeout(60_000)
            page.goto(f"http://{NAME}:{relay.port}/")
            assert page.title() == "attack"
            yield page


def test_a_page_whose_name_was_rebound_reads_and_changes_nothing(page: Any, relay: Relay, served: Served) -> None:
    origin = f"http://{NAME}:{relay.port}"
    assert "resnet_requests" not in page.evaluate(FETCH, [f"{origin}/metrics", {}])
    page.evaluate(FETCH, [origin + LOAD, {"method": "POST"}])
    assert relay.statuses == [400, 403]  # the name, and first the page's Origin
    assert served.ask("GET", "/models")[1]["models"][0]["name"] == "tiny"


def test_a_page_of_another_site_reads_and_changes_nothing(page: Any, served: Served) -> None:
    admin = f"http://127.0.0.1:{served.admin_port}"
    assert page.evaluate(FETCH, [f"{admin}/metrics", {}]) == "TypeError"
    for body in ("", "{}"):
        page.evaluate(FETCH, [admin + LOAD, {"method": "POST", "mode": "no-cors", "body": body}])
    assert served.ask("GET", "/models")[1]["models"][0]["name"] == "tiny"


def test_the_relay_itself_would_reach_the_port(relay: Relay, served: Served) -> None:
    # Without this, the tests above could pass because nothing was passed on at all.
    status, text = Served(served.process, relay.port, 0).ask("GET", "/metrics")
    assert status == 200 and "resnet_requests" in text
    assert relay.statuses == [200]
