"""A stand-in for the service, with answers that a test chooses and can hold back, and a real Chromium to show the page.

The stand-in serves the page's own files under the same content security policy as the service.
"""

import contextlib
import io
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from PIL import Image

WEB = Path(__file__).parents[2] / "service" / "web"
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
PAGE_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/heat.js": ("heat.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}


@dataclass
class WeightsRequest:
    """One request to classify, as the service saw it."""

    name: str
    bytes: bytes
    query: dict[str, list[str]]


@dataclass
class StandIn:
    """What the stand-in answers, and what it was asked. Without other orders, the label is the file's name."""

    models: list[str] = field(default_factory=lambda: ["animals"])
    problems: dict[str, list[tuple[int, dict[str, str], dict[str, Any]]]] = field(default_factory=dict)
    gates: dict[str, threading.Event] = field(default_factory=dict)
    asked: list[WeightsRequest] = field(default_factory=list)
    unplugged: set[str] = field(default_factory=set)  # names of files at which the connection breaks
    address: str = ""

    def answer(self, asked: WeightsRequest) -> tuple[int, dict[str, str], dict[str, Any]]:
        self.asked.append(asked)
        if asked.name in self.gates:
            self.gates[asked.name].wait(30)
        if self.problems.get(asked.name):
            return self.problems[asked.name].pop(0)
        return 200, {}, answer_for(asked)


def answer_for(asked: WeightsRequest) -> dict[str, Any]:
    labels = [asked.name.split(".")[0], "dog", "ship", "truck", "frog"]
    probabilities = [0.934512, 0.05, 0.01, 0.0049, 0.0001]
    model = asked.query.get("model", ["animals"])[0]
    return {
        "model": {
            "name": model,
            "version": "1",
            "sha256": "0" * 64,
            "provider": "CPUExecutionProvider",
            "precision": "fp32",
        },
        "predictions": [
            {"label": label, "index": index, "probability": probability}
            for index, (label, probability) in enumerate(zip(labels, probabilities, strict=True))
        ],
        "image": {"format": "PNG", "width": 48, "height": 32},
        "timings_ms": {"decode": 1.9, "queue": 0.0, "inference": 0.5},
    }


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__(("127.0.0.1", 0), RequestHandler)
        self.stand_in = stand_in


class RequestHandler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path in PAGE_FILES:
            name, content_type = PAGE_FILES[self.path]
            self.send(200, {"Content-Type": content_type}, (WEB / name).read_bytes())
        elif self.path == "/models":
            known = {"labels": [f"label{number}" for number in range(20)]}
            models = [{"name": name, "default": name == "animals", **known} for name in self.server.stand_in.models]
            self.send(200, {"Content-Type": "application/json"}, json.dumps({"models": models}).encode())
        else:
            self.send(404, {}, b"")

    def do_POST(self) -> None:
        asked = self.read_question()
        if asked.name in self.server.stand_in.unplugged:
            self.server.stand_in.unplugged.discard(asked.name)
            return  # and the connection is closed without a word
        status, headers, body = self.server.stand_in.answer(asked)
        content_type = "application/json" if status == 200 else "application/problem+json"
        self.send(status, {"Content-Type": content_type, **headers}, json.dumps(body).encode())

    def read_question(self) -> WeightsRequest:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        head, _, rest = body.partition(b"\r\n\r\n")
        name = re.search(rb'name="file"; filename="([^"]*)"', head)
        assert name is not None, head
        content = rest[: rest.rindex(b"\r\n" + head.split(b"\r\n", maxsplit=1)[0])]
        return WeightsRequest(name[1].decode(), content, parse_qs(urlsplit(self.path).query))

    def send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Security-Policy": POLICY, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # a browser that was closed does not wait for its answer
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[StandIn]:
    stand_in = StandIn()
    server = Server(stand_in)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    stand_in.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield stand_in
    for gate in stand_in.gates.values():
        gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")  # a browser that outlived its module would leave its event loop running in later tests
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip("Debian's Chromium is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), headless=True, args=CHROMIUM_FLAGS)
        yield chromium
        chromium.close()


@contextlib.contextmanager
def opened(browser: Any, address: str, width: int = 1180) -> Iterator[Any]:
    """The page at an address; if it throws, or reaches for what its policy forbids, the test fails."""
    context = browser.new_context(viewport={"width": width, "height": 800})
    page = context.new_page()
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("console", lambda message: broken.append(message.text) if "Content Security" in message.text else None)
    page.set_default_timeout(30_000)
    page.goto(address)
    yield page
    context.close()
    assert broken == []


@pytest.fixture
def page(browser: Any, service: StandIn) -> Iterator[Any]:
    with opened(browser, service.address) as page:
        yield page


@pytest.fixture(scope="session")
def png() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((48, 32)).convert("RGB").save(file, "PNG")
    return file.getvalue()
