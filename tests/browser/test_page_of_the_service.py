"""The page as the real service serves it, with real answers."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import opened
from tests.support.images import encoded, exif
from tests.support.running_service import running_service
from tests.support.tiny_model import write_tiny_model

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


def red_image() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (48, 32), (250, 10, 10)).save(file, "PNG")
    return file.getvalue()


def red_and_blue(orientation: int = 1) -> bytes:
    """A wide image, red on the left half as stored."""
    image = Image.new("RGB", (96, 64), (255, 0, 0))
    image.paste((0, 0, 255), (48, 0, 96, 64))
    return encoded(image, "PNG", exif=exif(orientation))


def heat(page: Any, across: float, down: float) -> list[int]:
    """Red, green, blue and opacity at a place of the heat map, given in parts of its width and height."""
    page.locator("#heat").wait_for()
    found: list[int] = page.locator("#heat").evaluate(
        """(canvas, [across, down]) => {
          const pen = canvas.getContext("2d");
          return [...pen.getImageData(across * canvas.width, down * canvas.height, 1, 1).data];
        }""",
        [across, down],
    )
    return found


def test_an_image_gets_its_real_answer_from_the_default_model(page: Any) -> None:
    page.locator("#known", has_text="This model knows 8 labels").wait_for()
    pick(page, "a.png", red_image())
    page.locator("h2", has_text="red").wait_for()
    assert page.locator("#bars li").count() == 5
    facts = page.locator("#facts").inner_text()
    assert "colours, version 1" in facts
    assert "PNG, 48 × 32" in facts


def test_another_model_can_be_selected(page: Any) -> None:
    page.locator("#model").select_option("aaa-colours")
    pick(page, "a.png", red_image())
    page.locator("#facts", has_text="aaa-colours, version 1").wait_for()


@pytest.mark.parametrize("content", [b"plain text", red_image()[:60], bytes(3_000_000)])
def test_a_refusal_reaches_the_reader_in_the_words_of_the_service(page: Any, content: bytes) -> None:
    with page.expect_response("**/classify*") as refused:
        pick(page, "a.png", content)
    page.locator("#trouble", has_text=refused.value.json()["detail"]).wait_for()


def test_the_page_leads_to_the_description_of_the_interface(page: Any) -> None:
    page.get_by_role("link", name="API").click()
    page.locator("h1").wait_for()
    assert page.url.endswith("/docs")


def test_the_heat_map_of_a_chosen_label_lies_over_what_the_network_saw(page: Any) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/explain" in request.url else None)
    pick(page, "a.png", red_and_blue())
    page.locator("#where").wait_for()
    assert not page.locator("#heat").is_visible()
    assert asked == []
    page.locator("#map").select_option("red")
    assert heat(page, 0.06, 0.5) == [0, 0, 0, 128]
    assert heat(page, 0.3, 0.5) == [255, 230, 60, 153]
    assert heat(page, 0.7, 0.5)[3] == 0
    assert heat(page, 0.94, 0.5) == [0, 0, 0, 128]
    legend = page.locator("#legend").inner_text()
    assert legend == "What speaks for red: yellow most, red less. The network did not see the dark border."
    assert page.locator("#heat").bounding_box() == page.locator("#image").bounding_box()
    page.locator("#bars li", has_text="blue").click()
    page.locator("#legend", has_text="What speaks for blue").wait_for()
    assert page.locator("#map option:checked").inner_text() == "blue"
    assert heat(page, 0.3, 0.5)[3] == 0
    page.locator("#map").select_option("none")
    page.locator("#heat").wait_for(state="hidden")
    assert len(asked) == 1


def test_the_heat_map_of_a_turned_image_is_turned_with_it(page: Any) -> None:
    pick(page, "a.png", red_and_blue(orientation=6))  # shown with what was stored on the left at the top
    page.locator("#where").wait_for()
    page.locator("#map").select_option("red")
    assert heat(page, 0.5, 0.06) == [0, 0, 0, 128]
    assert heat(page, 0.5, 0.3) == [255, 230, 60, 153]
    assert heat(page, 0.5, 0.7)[3] == 0
    assert page.locator("#heat").bounding_box() == page.locator("#image").bounding_box()


def test_each_image_keeps_its_own_heat_map(page: Any) -> None:
    pick(page, "a.png", red_and_blue())
    page.locator("#where").wait_for()
    page.locator("#map").select_option("red")
    page.locator("#heat").wait_for()
    pick(page, "b.png", red_image())
    page.locator("#strip li:nth-child(1)", has_text="red").wait_for()
    assert not page.locator("#heat").is_visible()
    page.locator("#strip li:nth-child(2) button").click()
    page.locator("#heat").wait_for()
    assert page.locator("#map option:checked").inner_text() == "red"


def test_a_heat_map_that_is_refused_can_be_chosen_again(page: Any) -> None:
    refusal = {"detail": "Too many heat maps are waiting."}
    page.route("**/explain*", lambda route: route.fulfill(status=503, json=refusal), times=1)
    pick(page, "a.png", red_and_blue())
    page.locator("#where").wait_for()
    page.locator("#map").select_option("red")
    page.locator("#legend", has_text=refusal["detail"]).wait_for()
    assert page.locator("#map option:checked").inner_text() == "none"
    page.locator("#map").select_option("red")
    assert heat(page, 0.3, 0.5) == [255, 230, 60, 153]


def test_a_file_that_the_browser_cannot_show_has_no_heat_map(page: Any) -> None:
    pick(page, "a.png", red_and_blue())
    page.locator("#where").wait_for()
    page.locator("#image").evaluate("image => { image.src = 'data:image/png;base64,AAAA'; }")
    page.locator("#map").select_option("red")
    page.locator("#legend", has_text="no map can be laid over it").wait_for()
    assert not page.locator("#heat").is_visible()
