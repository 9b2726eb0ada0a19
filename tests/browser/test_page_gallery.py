"""One or hundreds of images: their cards, filter, order, and results as files."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import pick, see, wait_until_done

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]  # on a busy machine


def cards(page: Any) -> list[str]:
    found: list[str] = page.locator("#cards .name").all_text_contents()
    return found


def saved(page: Any, button: str) -> str:
    with page.expect_download() as download:
        page.locator(button).click()
    return Path(download.value.path()).read_bytes().decode()


def test_each_image_has_a_card_with_thumbnail_label_and_percentage(page: Any, service: Any, png: bytes) -> None:
    service.unsure.add("bee.png")
    service.problems["cow.png"] = [(422, {}, {"code": "bad_image", "detail": "Broken."})]
    pick(page, "ant.png", "bee.png", "cow.png", content=png)
    wait_until_done(page, 3)
    assert page.locator("#cards .label").all_text_contents() == ["No answer", "Not sure", "ant"]
    assert page.locator("#cards .percent").all_text_contents() == ["", "93.5%", "93.5%"]
    page.locator("#cards .thumbnail img").nth(2).wait_for()
    assert page.locator('#cards [aria-current="true"] .name').inner_text() == "ant.png"
    page.locator("#cards button").nth(1).click()
    assert page.locator("#headline").inner_text() == "Not sure"
    assert page.locator("#position").inner_text() == "2 of 3"
    page.locator("#next").click()
    assert page.locator("#headline").inner_text() == "ant"


def test_cards_are_filtered_and_sorted(page: Any, service: Any, png: bytes) -> None:
    service.best = {"n2.png": 0.2, "n10.png": 0.9, "n1.png": 0.5}
    service.unsure.add("n2.png")
    pick(page, "n2.png", "n10.png", "n1.png", content=png)
    wait_until_done(page, 3)
    for order, names in {
        "name": ["n1.png", "n2.png", "n10.png"],
        "label": ["n1.png", "n2.png", "n10.png"],
        "most": ["n10.png", "n1.png", "n2.png"],
        "least": ["n2.png", "n1.png", "n10.png"],
        "newest": ["n1.png", "n10.png", "n2.png"],
    }.items():
        page.locator("#order").select_option(order)
        page.wait_for_function(
            "names => [...document.querySelectorAll('.name')].map(name => name.textContent).join() === names",
            arg=",".join(names),
        )
    page.locator("#show").select_option("unsure")
    page.wait_for_function("() => document.querySelectorAll('#cards li').length === 1")
    assert cards(page) == ["n2.png"]
    page.locator("#show").select_option("sure")
    page.locator("#filter").fill("n10")
    page.wait_for_function("() => document.querySelectorAll('#cards li').length === 1")
    assert cards(page) == ["n10.png"]
    page.locator("#filter").fill("zebra")
    see(page, "#none-shown", "No image matches")


def test_results_are_saved_as_csv_and_json(page: Any, service: Any, png: bytes) -> None:
    service.problems["bad.png"] = [(422, {}, {"code": "bad_image", "detail": 'It is "broken", sadly.'})]
    pick(page, "bad.png", "=cat.png", content=png)
    wait_until_done(page, 2)
    rows = list(csv.DictReader(saved(page, "#save-csv").splitlines()))
    assert [row["file"] for row in rows] == ["'=cat.png", "bad.png"]  # which no spreadsheet takes for a formula
    assert [rows[0][name] for name in ("model", "version", "label", "probability", "label_2")] == [
        "animals",
        "1",
        "'=cat",
        "0.934512",
        "dog",
    ]
    assert rows[1]["error"] == 'It is "broken", sadly.'
    records = json.loads(saved(page, "#save-json"))
    assert records[0]["predictions"][0] == {"label": "=cat", "index": 0, "probability": 0.934512} | {
        "map": records[0]["predictions"][0]["map"]
    }
    assert records[1] == {"file": "bad.png", "error": 'It is "broken", sadly.'}


def test_hundreds_of_images_keep_all_their_answers_with_few_cards_at_a_time(
    page: Any, service: Any, png: bytes
) -> None:
    count = 150
    pick(page, *[f"n{number}.png" for number in range(count)], content=png)
    wait_until_done(page, count)
    assert page.locator("#cards li").count() < 100
    assert page.locator("#cards li").first.get_attribute("aria-setsize") == str(count)
    height = page.evaluate("document.documentElement.scrollHeight")
    page.locator("#cards button").first.focus()
    page.keyboard.press("End")
    see(page, "#headline", "n0")
    assert page.evaluate("document.activeElement.querySelector('.name').textContent") == "n0.png"
    assert page.evaluate("document.documentElement.scrollHeight") == height
    assert page.locator("#cards li").last.get_attribute("aria-posinset") == str(count)
    page.keyboard.press("ArrowLeft")
    see(page, "#headline", "n1")
    assert len(json.loads(saved(page, "#save-json"))) == count
    assert page.locator('#cards button[tabindex="0"]').count() == 1  # one stop of the Tab key


def test_memory_of_images_is_given_back(page: Any, service: Any, png: bytes) -> None:
    page.evaluate("""() => {
      window.open_addresses = new Set();
      const { createObjectURL: create, revokeObjectURL: revoke } = URL;
      URL.createObjectURL = (file) => { const made = create(file); window.open_addresses.add(made); return made; };
      URL.revokeObjectURL = (address) => { window.open_addresses.delete(address); revoke(address); };
    }""")
    pick(page, *[f"n{number}.png" for number in range(8)], content=png)
    wait_until_done(page, 8)
    page.wait_for_function("() => document.querySelectorAll('.thumbnail img').length === 8")
    assert page.evaluate("window.open_addresses.size") == 9  # the thumbnails, and the large image
    page.locator("#clear").click()
    page.wait_for_function("() => window.open_addresses.size === 0")
    assert not page.locator("#gallery").is_visible()
    assert not page.locator("#detail").is_visible()
    assert page.locator("#intake.compact").count() == 0
