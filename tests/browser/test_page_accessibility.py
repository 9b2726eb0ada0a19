"""Every state of the page under axe-core, and under forced colours."""

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from tests.browser.conftest import opened, pick, see, wait_until_done

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]  # on a busy machine

BUSY = (503, {"Retry-After": "60"}, {"code": "overloaded", "detail": "Too many images are waiting."})
BROKEN = (422, {}, {"code": "bad_image", "detail": "The image ends too early."})


@pytest.fixture(scope="module")
def axe() -> str:
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    return (files(package) / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(params=["light", "dark"])
def page(request: Any, browser: Any, service: Any) -> Iterator[Any]:
    options = {"color_scheme": request.param, "permissions": ["camera"], "reduced_motion": "reduce"}
    with opened(browser, service.address, **options) as page:
        page.locator("#picker").wait_for()
        yield page


def findings(page: Any, axe: str) -> list[str]:
    """Serious and critical findings, as one line each."""
    page.evaluate(axe)
    found = page.evaluate("axe.run().then(({ violations }) => violations)")
    return [
        f"{violation['id']}: {node['target']} {node['failureSummary']}"
        for violation in found
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


def test_no_state_of_the_page_has_serious_findings(page: Any, service: Any, png: bytes, axe: str) -> None:
    assert findings(page, axe) == []  # empty
    service.unsure.add("odd.png")
    service.problems = {"bad.png": [BROKEN], "late.png": [BUSY]}
    pick(page, "cat.png", content=png)
    see(page, "#headline", "cat")
    page.locator("#bars button").nth(1).click()
    page.locator("#heat").wait_for()
    assert findings(page, axe) == []  # one image, with a heat map
    pick(page, "odd.png", "bad.png", content=png)
    wait_until_done(page, 3)
    assert findings(page, axe) == []  # several images; not sure
    page.locator("#cards button", has_text="bad.png").click()
    see(page, "#trouble-detail", "too early")
    assert findings(page, axe) == []  # a refusal
    page.locator("#camera-open").click()
    page.wait_for_function("() => document.getElementById('video').videoWidth > 0")
    page.locator("#live").click()
    see(page, "#live-label", "%")
    assert findings(page, axe) == []  # the camera
    page.locator("#camera-close").click()
    pick(page, "late.png", content=png)
    see(page, "#banner-title", "busy")
    assert findings(page, axe) == []  # waiting


def test_asking_for_a_key_and_a_narrow_window_have_no_serious_findings(
    browser: Any, service: Any, png: bytes, axe: str
) -> None:
    service.key = "sesame"
    with opened(browser, service.address, 320) as page:
        see(page, "#key-form", "API key")
        assert findings(page, axe) == []
        page.locator("#key").fill("sesame")
        page.locator("#key-form button").click()
        pick(page, "cat.png", "dog.png", content=png)
        see(page, "#headline", "cat")
        assert findings(page, axe) == []
        assert page.evaluate("document.documentElement.scrollWidth") == 320


def test_bars_and_the_selected_card_are_visible_under_forced_colours(browser: Any, service: Any, png: bytes) -> None:
    with opened(browser, service.address, forced_colors="active") as page:
        pick(page, "cat.png", "dog.png", content=png)
        see(page, "#headline", "cat")
        bar, track = (
            page.locator(selector).first.evaluate("element => getComputedStyle(element).backgroundColor")
            for selector in ("#bars .bar", "#bars .track")
        )
        assert bar != track
        outline = page.locator('#cards [aria-current="true"]').evaluate("card => getComputedStyle(card).outlineStyle")
        assert outline == "solid"
