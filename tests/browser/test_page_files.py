"""Files that the browser converts or shrinks before it sends them, and the camera."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import opened, pick, see
from tests.browser.stand_in import MOST_BYTES

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]  # on a busy machine

HEIC = b"\x00\x00\x00\x18ftypheic" + bytes(200)


def encoded(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def noise(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8))


@pytest.mark.parametrize("kind", ["GIF", "BMP", "AVIF"])
def test_other_formats_are_converted_and_the_page_says_so(page: Any, service: Any, kind: str) -> None:
    pick(page, "cat.x", content=encoded(Image.new("RGB", (64, 40), (250, 10, 10)), kind))
    see(page, "#headline", "cat")
    see(page, "#conversion", f"The file is {kind}. This browser sent a copy of it: PNG, 64 × 40 pixels")
    with Image.open(io.BytesIO(service.requests[0].bytes)) as sent:
        assert (sent.format, sent.size) == ("PNG", (64, 40))
        red, green, _ = sent.convert("RGB").getpixel((30, 20))
        assert red > 240 and green < 20


def test_a_heic_photo_that_the_browser_cannot_read_is_explained(page: Any, service: Any) -> None:
    pick(page, "IMG_1.HEIC", content=HEIC)
    see(page, "#trouble-detail", "This is a HEIC photo")
    see(page, "#trouble-advice", "Most Compatible")
    assert service.requests == []


def test_a_file_above_the_limit_is_shrunk_and_the_page_says_so(page: Any, service: Any) -> None:
    content = encoded(noise(600), "PNG")
    assert len(content) > MOST_BYTES
    pick(page, "big.png", content=content)
    see(page, "#headline", "big")
    see(page, "#conversion", "more than the server accepts. This browser sent a smaller copy of it: JPEG, ")
    assert len(service.requests[0].bytes) <= MOST_BYTES


def test_an_image_that_the_server_finds_too_large_is_shrunk_once(page: Any, service: Any) -> None:
    refusal = (422, {}, {"code": "bad_image", "detail": "has 5,760,000 pixels; at most 1,000,000 are accepted."})
    service.problems["wide.png"] = [refusal]
    pick(page, "wide.png", content=encoded(Image.new("L", (2400, 2400), 7), "PNG"))
    see(page, "#headline", "wide")
    see(page, "#conversion", "JPEG, 2048 × 2048 pixels")
    with Image.open(io.BytesIO(service.requests[1].bytes)) as sent:
        assert sent.size == (2048, 2048)
    service.problems["wide.png"] = [refusal, refusal]
    pick(page, "wide.png", content=encoded(Image.new("L", (2400, 2400), 7), "PNG"))
    see(page, "#trouble-detail", "5,760,000 pixels")


def test_a_broken_file_above_the_limit_is_explained(page: Any, service: Any) -> None:
    pick(page, "big.png", content=b"\x89PNG\r\n\x1a\n" + bytes(2 * MOST_BYTES))
    see(page, "#trouble-detail", "The file has 200 kB; the server accepts 100 kB, and this browser cannot shrink it.")
    assert service.requests == []


# The camera


@pytest.fixture
def camera_page(browser: Any, service: Any) -> Iterator[Any]:
    with opened(browser, service.address, permissions=["camera"]) as page:
        page.locator("#picker").wait_for()
        page.locator("#camera-open").click()
        page.wait_for_function("() => document.getElementById('video').videoWidth > 0")
        yield page


def test_the_shutter_adds_a_photo_of_the_camera(camera_page: Any, service: Any) -> None:
    camera_page.locator("#shutter").click()
    see(camera_page, "#file-name", "camera-1.jpg")
    see(camera_page, "#headline", "camera-1")
    camera_page.locator("#camera-close").click()
    assert camera_page.evaluate("document.getElementById('video').srcObject") is None
    assert camera_page.evaluate("document.activeElement.id") == "camera-open"


def test_live_labels_change_with_the_answers_until_they_are_turned_off(camera_page: Any, service: Any) -> None:
    camera_page.locator("#live").click()
    see(camera_page, "#live-label", "frame 93.5%")
    service.best["frame.jpg"] = 0.5
    see(camera_page, "#live-label", "frame 50.0%")
    service.unsure.add("frame.jpg")
    see(camera_page, "#live-label", "not sure (frame 50.0%)")
    service.problems["frame.jpg"] = [(503, {"Retry-After": "1"}, {"code": "overloaded"})]
    see(camera_page, "#live-label", "The server is busy.")
    see(camera_page, "#live-label", "not sure (frame 50.0%)")
    camera_page.locator("#live").click()
    assert not camera_page.locator("#live-label").is_visible()
    with Image.open(io.BytesIO(service.requests[0].bytes)) as sent:
        assert sent.width == 320


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("NotAllowedError", "does not let the page use the camera. Allow it"),
        ("NotFoundError", "This device has no camera."),
        ("NotReadableError", "in use by another program"),
        ("AbortError", "could not be started"),
    ],
)
def test_the_page_says_why_there_is_no_camera(page: Any, failure: str, words: str) -> None:
    page.evaluate(
        "name => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', name); }; }",
        failure,
    )
    page.locator("#camera-open").click()
    see(page, "#camera-trouble", words)
    assert not page.locator("#shutter").is_visible()


def test_a_page_without_https_says_that_the_camera_needs_it(page: Any) -> None:
    page.evaluate("Object.defineProperty(navigator, 'mediaDevices', { value: undefined })")
    page.locator("#camera-open").click()
    see(page, "#camera-trouble", "Browsers allow the camera on https and on localhost only")
