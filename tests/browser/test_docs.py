"""Swagger UI at /docs, as the real service serves it."""

import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from tests.browser.conftest import opened
from tests.support.model_files.tiny_model import write_tiny_model
from tests.support.servers.running_service import running_service

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]  # 1.7 MB of scripts, on a busy machine

CLASSIFY = "[id^=operations-][id$=-classify]"
NARROW = 360  # px


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = tmp_path_factory.mktemp("models")
    write_tiny_model(models, "colours")
    with running_service(models) as address:
        yield address


def red_image() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 32), (250, 10, 10)).save(file, "PNG")
    return file.getvalue()


def test_an_image_is_uploaded_from_a_narrow_page_that_uses_no_other_host(browser: Any, address: str) -> None:
    hosts: set[str] = set()
    with opened(browser, "about:blank", NARROW) as page:
        page.set_default_timeout(120_000)
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(f"{address}/docs")
        assert f"{address}/classify" in page.locator("header pre").inner_text()
        classify = page.locator(CLASSIFY)
        classify.locator(".opblock-summary-control").click()
        classify.get_by_role("button", name="Try it out").click()
        image = {"name": "a.png", "mimeType": "image/png", "buffer": red_image()}
        classify.locator("input[type=file]").set_input_files([image])
        with page.expect_response("**/classify*") as answer:
            classify.get_by_role("button", name="Execute", exact=True).click()
        assert answer.value.status == 200
        assert answer.value.json()["predictions"][0]["label"] == "red"
        classify.locator(".live-responses-table", has_text='"red"').wait_for()
        assert f"'{address}/classify?top_k=5'" in classify.locator(".curl-command").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth") == NARROW
        assert hosts == {urlsplit(address).netloc}


def test_the_type_of_a_problem_shows_its_row_among_the_errors(browser: Any, address: str) -> None:
    with opened(browser, "about:blank") as page:
        page.set_default_timeout(120_000)
        page.goto(f"{address}/docs#bad_image")
        page.locator(CLASSIFY).wait_for()
        page.wait_for_function(
            """() => {
              const row = document.getElementById("bad_image").getBoundingClientRect();
              return row.top >= 0 && row.bottom <= innerHeight;
            }"""
        )
