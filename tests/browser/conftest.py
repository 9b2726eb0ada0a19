"""A real Chromium that shows the page, served by a stand-in of the service."""

import contextlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.stand_in import RequestHandler, Server, StandIn

CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # green, with a moving disc
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), RequestHandler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def service(server: Server) -> Iterator[StandIn]:
    server.stand_in = StandIn(address=f"http://127.0.0.1:{server.server_address[1]}")
    yield server.stand_in
    for gate in server.stand_in.gates.values():
        gate.set()


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
def opened(browser: Any, address: str, width: int = 1180, **options: Any) -> Iterator[Any]:
    """The page at an address, in a context of its own."""
    context = browser.new_context(viewport={"width": width, "height": 800}, **options)
    with watched(context, address) as page:
        yield page
    context.close()


@contextlib.contextmanager
def watched(context: Any, address: str) -> Iterator[Any]:
    """The page at an address; if it throws, reports an error, or breaks its policy, the test fails.

    Chromium reports each refused or broken request as an error, too; those that a test provokes are not counted.
    """
    page = context.new_page()
    broken: list[str] = []
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.on("console", lambda message: broken.append(message.text) if is_error(message) else None)
    page.set_default_timeout(100_000)  # on a busy machine
    page.goto(address)
    yield page
    page.close()
    assert broken == []


def is_error(message: Any) -> bool:
    return message.type == "error" and not message.text.startswith("Failed to load resource")


@pytest.fixture(scope="module")  # so that the files of the page are fetched and compiled once
def context(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1180, "height": 800})
    yield context
    context.close()


@pytest.fixture
def page(context: Any, service: StandIn) -> Iterator[Any]:
    with watched(context, service.address) as page:
        page.locator("#picker").wait_for()
        yield page


@pytest.fixture(scope="session")
def png() -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((48, 32)).convert("RGB").save(file, "PNG")
    return file.getvalue()


def pick(page: Any, *names: str, content: bytes) -> None:
    page.set_input_files("#files", [{"name": name, "mimeType": "image/png", "buffer": content} for name in names])


def wait_until_done(page: Any, count: int) -> None:
    words = f"{count} image{'s' if count > 1 else ''}"
    page.wait_for_function(
        "words => document.getElementById('progress').textContent === words", arg=words, timeout=300_000
    )


def see(page: Any, selector: str, text: str) -> None:
    page.locator(selector, has_text=text).first.wait_for()
