"""The screenshot of the page in the README: the shipped model, the samples, and a heat map.

`WRITE_SCREENSHOT=1 .venv/bin/pytest tests/browser/test_page_screenshot.py` replaces docs/images/page.png.
"""

import io
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import opened, see
from tests.support.servers.running_service import running_service

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]  # on a busy machine

ROOT = Path(__file__).parents[2]
SCREENSHOT = ROOT / "docs" / "images" / "page.png"
MOST_BYTES = 200_000
WIDTH, HEIGHT = 1280, 960
LABELS = {
    "espresso": "espresso",
    "lemons": "lemon",
    "mushroom": "mushroom",
    "school-bus": "school bus",
    "ladybug": "ladybug",
}


def test_the_shipped_model_recognizes_the_samples_and_the_screenshot_of_the_readme_shows_a_heat_map(
    browser: Any,
) -> None:
    with running_service(ROOT / "models") as address, opened(browser, address, WIDTH) as page:
        page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        page.locator("#picker").wait_for()
        page.locator('#samples button:has(img[src$="cat.jpg"])').click()
        see(page, "#headline", "Not sure")
        for name, label in LABELS.items():
            page.locator(f'#samples button:has(img[src$="{name}.jpg"])').click()
            see(page, "#headline", label)
        page.locator("#bars button").first.click()
        page.mouse.move(1, 1)
        page.locator("#heat").wait_for()
        page.wait_for_function("() => document.querySelectorAll('.thumbnail img').length === 6")
        screenshot = shrunk(page.screenshot(animations="disabled"))
    assert len(screenshot) <= MOST_BYTES
    if os.environ.get("WRITE_SCREENSHOT"):
        SCREENSHOT.parent.mkdir(exist_ok=True)
        SCREENSHOT.write_bytes(screenshot)
    with Image.open(SCREENSHOT) as kept:
        assert kept.size == (WIDTH, HEIGHT)
    assert SCREENSHOT.stat().st_size <= MOST_BYTES


def shrunk(png: bytes) -> bytes:
    """Return a PNG with 256 colours, a third of the size."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return file.getvalue()
