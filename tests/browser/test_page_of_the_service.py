"""The page as the real service serves it, with real answers."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import opened
from tests.running_service import running_service
from tests.service.tiny_model import write_tiny_model

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = tmp_path_factory.mktemp("models")
    for name in ("aaa-colours", "colours"):
        write_tiny_model(models, name)
    with running_service(models, "--default-model", "colours", "--max-image-bytes", "100000") as address:
        yield address


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened(browser, address) as page:
        yield page


def pick(page: Any, name: str, content: bytes) -> None:
    page.set_input_files("#files", [{"name": name, "mimeType": "image/png", "buffer": content}])


def red_picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 32), (250, 10, 10)).save(file, "PNG")
    return file.getvalue()


def test_a_picture_gets_its_real_answer_from_the_default_model(page: Any) -> None:
    page.locator("#known", has_text="This model knows 8 labels").wait_for()
    pick(page, "a.png", red_picture())
    page.locator("h2", has_text="red").wait_for()
    assert page.locator("#bars li").count() == 5
    facts = page.locator("#facts").inner_text()
    assert "colours, version 1" in facts
    assert "PNG, 48 × 32" in facts


def test_another_model_can_be_asked(page: Any) -> None:
    page.locator("#model").select_option("aaa-colours")
    pick(page, "a.png", red_picture())
    page.locator("#facts", has_text="aaa-colours, version 1").wait_for()


@pytest.mark.parametrize("content", [b"plain text", red_picture()[:60], bytes(3_000_000)])
def test_a_refusal_reaches_the_reader_in_the_words_of_the_service(page: Any, content: bytes) -> None:
    with page.expect_response("**/classify*") as refused:
        pick(page, "a.png", content)
    page.locator("#trouble", has_text=refused.value.json()["detail"]).wait_for()


def test_the_page_leads_to_the_description_of_the_interface(page: Any) -> None:
    page.get_by_role("link", name="API").click()
    page.locator("h1").wait_for()
    assert page.url.endswith("/docs")
