"""The page as the real service serves it, with real answers of a tiny model whose maps are known."""

import io
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import opened, see, watched
from tests.support.image_files.images import encoded, exif
from tests.support.model_files.tiny_model import write_tiny_model
from tests.support.servers.running_service import running_service

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]  # on a busy machine

# Where a part of the page lies, relative to the image.
PLACE = """([id]) => {
  const image = document.getElementById("image").getBoundingClientRect();
  const part = document.getElementById(id).getBoundingClientRect();
  return [part.left - image.left, part.top - image.top, part.width, part.height].map(
    (length, place) => length / (place % 2 ? image.height : image.width),
  );
}"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    models = tmp_path_factory.mktemp("models")
    for name in ("aaa-colours", "colours"):
        write_tiny_model(models, name)
    with running_service(models, "--default-model", "colours", "--max-image-bytes", "100000") as address:
        yield address


@pytest.fixture
def page(context: Any, address: str) -> Iterator[Any]:
    with watched(context, address) as page:
        page.locator("#picker").wait_for()
        yield page


def pick(page: Any, name: str, content: bytes) -> None:
    page.set_input_files("#files", [{"name": name, "mimeType": "image/png", "buffer": content}])


def red_image() -> bytes:
    return encoded(Image.new("RGB", (48, 32), (250, 10, 10)), "PNG")


def red_and_blue(orientation: int = 1) -> bytes:
    """A wide image, red on the left half as stored."""
    image = Image.new("RGB", (96, 64), (255, 0, 0))
    image.paste((0, 0, 255), (48, 0, 96, 64))
    return encoded(image, "PNG", exif=exif(orientation))


def look_at(page: Any, label: str) -> None:
    page.locator("#bars button", has_text=label).hover()
    see(page, "#legend", f"Heat map of {label}")


def heat(page: Any) -> Any:
    """Red, green, blue and opacity of the heat map's pixels, (height, width, 4)."""
    flat, width = page.locator("#heat").evaluate(
        "canvas => [[...canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data], canvas.width]"
    )
    return np.array(flat, np.int64).reshape(-1, width, 4)


def test_an_image_gets_its_real_answer_from_the_default_model_and_no_other_host_is_asked(
    browser: Any, address: str
) -> None:
    hosts: set[str] = set()
    with opened(browser, "about:blank") as page:
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(address)
        pick(page, "a.png", red_image())
        see(page, "#headline", "red")
        assert page.locator("#bars button").count() == 5
        see(page, "#facts", "colours, version 1 · CPUExecutionProvider, fp32 · PNG, 48 × 32 pixels")
        assert page.locator("#times").inner_text().count("ms") == 5
        assert hosts - {""} == {urlsplit(address).netloc}  # blobs have none


def test_another_model_can_be_selected(page: Any) -> None:
    page.locator("#model").select_option("aaa-colours:1")
    pick(page, "a.png", red_image())
    see(page, "#facts", "aaa-colours, version 1")


@pytest.mark.parametrize("content", [b"plain text", red_image()[:60], bytes(90_000)])
def test_a_refusal_reaches_the_reader_in_the_words_of_the_service(page: Any, content: bytes) -> None:
    with page.expect_response("**/classify*") as refused:
        pick(page, "a.png", content)
    see(page, "#trouble-detail", refused.value.json()["detail"].replace("`", ""))


def test_the_page_leads_to_the_description_of_the_interface(page: Any) -> None:
    page.get_by_role("link", name="API").click()
    page.locator("h1").wait_for()
    assert page.url.endswith("/docs")


def test_heat_maps_of_labels_differ_and_lie_over_the_framed_part_that_the_network_saw(page: Any) -> None:
    responses: list[Any] = []
    page.on("response", lambda response: responses.append(response) if "/explain" in response.url else None)
    pick(page, "a.png", red_and_blue())
    see(page, "#legend", "Point at a label")
    assert responses == []
    assert page.evaluate(PLACE, ["seen"]) == pytest.approx([16 / 96, 0, 64 / 96, 1], abs=0.01)
    look_at(page, "red")
    assert page.evaluate(PLACE, ["heat"]) == pytest.approx([16 / 96, 0, 64 / 96, 1], abs=0.01)
    red = heat(page)
    assert red[96, 20].tolist() == pytest.approx([255, 230, 60, 217], abs=3)
    assert red[96, 170, 3] == 0
    red_shown = page.locator("#image-box").screenshot()
    look_at(page, "blue")
    blue = heat(page)
    assert blue[96, 170, 3] > 200
    assert blue[96, 20, 3] == 0
    assert page.locator("#image-box").screenshot() != red_shown
    crop = responses[0].json()["crop"]
    assert crop == pytest.approx([16, 0, 80, 64])
    assert len(responses) == 1


def test_a_chosen_label_keeps_its_map_under_an_opacity_slider(page: Any) -> None:
    pick(page, "a.png", red_and_blue())
    button = page.locator("#bars button", has_text="red")
    button.click()
    page.mouse.move(1, 1)
    page.locator("#heat").wait_for()
    page.locator("#opacity").fill("20")
    assert page.locator("#heat").evaluate("canvas => canvas.style.opacity") == "0.2"
    assert page.locator("#opacity").get_attribute("aria-valuetext") == "20%"
    page.locator("#heat-off").click()
    page.locator("#heat").wait_for(state="hidden")
    assert button.get_attribute("aria-pressed") == "false"


def test_a_tap_shows_the_heat_map_on_a_phone(browser: Any, address: str) -> None:
    with opened(browser, address, 360, has_touch=True, is_mobile=True) as page:
        page.locator("#picker").wait_for()
        pick(page, "a.png", red_and_blue())
        page.locator("#bars button", has_text="blue").tap()
        see(page, "#legend", "Heat map of blue")
        assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_the_heat_map_of_a_turned_image_is_turned_with_it(page: Any) -> None:
    pick(page, "a.png", red_and_blue(orientation=6))  # shown with what was stored on the left at the top
    look_at(page, "red")
    assert page.evaluate(PLACE, ["heat"]) == pytest.approx([0, 16 / 96, 1, 64 / 96], abs=0.01)
    pixels = heat(page)
    assert pixels[20, 96, 3] > 200
    assert pixels[170, 96, 3] == 0


def test_a_heat_map_that_is_refused_can_be_chosen_again(page: Any) -> None:
    refusal = {"detail": "Too many heat maps are waiting.", "code": "overloaded"}
    page.route("**/explain*", lambda route: route.fulfill(status=503, json=refusal), times=1)
    pick(page, "a.png", red_and_blue())
    button = page.locator("#bars button", has_text="red")
    button.dispatch_event("click")  # without a pointer over it, which would ask again by itself
    see(page, "#legend", refusal["detail"])
    button.dispatch_event("click")
    button.dispatch_event("click")
    page.locator("#heat").wait_for()


def test_an_image_that_is_seen_whole_has_no_frame(page: Any) -> None:
    pick(page, "a.png", encoded(Image.new("RGB", (40, 40), (250, 10, 10)), "PNG"))
    look_at(page, "red")
    assert not page.locator("#seen").is_visible()
    assert "frame" not in page.locator("#legend").inner_text()


def test_the_model_is_described_for_people_and_its_labels_can_be_searched(page: Any) -> None:
    see(page, "#about-title", "About the model colours")
    card = page.locator("#card").inner_text()
    for words in ("tiny, 1 layers deep", "not measured", "CPU (CPUExecutionProvider)", "version 1, SHA-256"):
        assert words in card
    assert page.locator("#labels li").count() == 8
    page.locator("#label-search").fill("YEL")
    assert page.locator("#labels li").all_inner_texts() == ["yellow"]
    see(page, "#labels-count", "1 of 8 labels match.")
    page.locator("#label-search").fill("zebra")
    see(page, "#labels-count", "No label matches.")


def test_the_page_says_where_images_go(page: Any) -> None:
    see(page, "#privacy", "Your images go to this server only, stay in its memory while it answers, and are not kept.")


@pytest.mark.parametrize("name", ["photo.jpg", "my cat; it's.png", "-x.png"])
def test_the_shown_commands_give_the_same_answer(page: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(red_image())
    page.locator("#model").select_option("aaa-colours:1")
    pick(page, name, red_image())
    see(page, "#headline", "red")
    curl, python, script = (snippet(page, language) for language in ("curl", "python", "javascript"))
    assert shlex.split(curl)[-1].endswith("/classify?model=aaa-colours")
    if shutil.which("curl"):
        assert '"label":"red"' in output(["sh", "-c", curl], tmp_path)
    assert "red" in output([sys.executable, "-c", python], tmp_path).splitlines()[0]
    if shutil.which("node"):
        (tmp_path / "snippet.mjs").write_text(script)
        assert "red" in output(["node", "snippet.mjs"], tmp_path).splitlines()[0]


def snippet(page: Any, language: str) -> str:
    page.locator(f"#tab-{language}").click()
    text: str = page.locator("#snippet").inner_text()
    return text


def output(command: list[str], folder: Path) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=100).stdout


def test_copying_is_confirmed_visibly(browser: Any, address: str) -> None:
    with opened(browser, address, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.locator("#picker").wait_for()
        page.locator("#copy").click()
        see(page, "#copied", "✓ Copied")
        assert page.evaluate("navigator.clipboard.readText()") == page.locator("#snippet").inner_text()


def test_without_the_clipboard_the_text_is_selected(page: Any) -> None:
    page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.locator("#copy").click()
    page.locator("#copied", has_text="opied").or_(page.locator("#copied", has_text="Ctrl+C")).wait_for()
    assert page.evaluate("getSelection().toString().trim()") == page.locator("#snippet").inner_text()


def test_the_page_and_its_samples_are_small(address: str) -> None:
    web = Path(__file__).parents[2] / "service" / "web"
    samples = sum(file.stat().st_size for file in (web / "samples").glob("*.jpg"))
    folders = (web, web / "page", web / "parts")
    files = [file for folder in folders for file in folder.iterdir() if file.suffix in (".js", ".css", ".html")]
    assert samples <= 60_000
    assert samples + sum(file.stat().st_size for file in files) <= 150_000
    for file in (web / "samples").glob("*.jpg"):
        with Image.open(io.BytesIO(file.read_bytes())) as image:
            assert image.format == "JPEG"
