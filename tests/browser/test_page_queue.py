"""What the page does while the server is busy, starts, is gone, or asks for a key; and when the model changes."""

import threading
from typing import Any

import pytest

from tests.browser.conftest import opened, pick, see, wait_until_done

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]  # on a busy machine

BUSY = (503, {"Retry-After": "2"}, {"code": "overloaded", "detail": "Too many images are waiting."})
RECORD_COUNTDOWN = """() => {
  const place = document.getElementById("countdown");
  const shown = new Set();
  new MutationObserver(() => {
    shown.add(place.textContent);
    window.countdown = [...shown];
  }).observe(place, { childList: true });
}"""
STOPPED = """() => !document.getElementById("banner").hidden
  || document.getElementById("progress").textContent === "12 images" """
STARTING = (503, {"Retry-After": "1"}, {"code": "not_ready", "detail": "The server is loading its models."})


def test_a_busy_server_is_asked_again_after_its_wait_with_a_countdown(page: Any, service: Any, png: bytes) -> None:
    service.problems["cat.png"] = [BUSY]
    page.evaluate(RECORD_COUNTDOWN)
    pick(page, "cat.png", content=png)
    see(page, "#headline", "cat")
    assert page.locator("#banner-title").text_content() == "The server is busy."
    shown = page.evaluate("window.countdown")
    assert "Next try in 2 s." in shown
    assert len(shown) > 1
    assert not page.locator("#banner").is_visible()
    assert service.classified() == ["cat.png", "cat.png"]


def test_a_wait_can_be_cut_short_and_no_image_is_lost(page: Any, service: Any, png: bytes) -> None:
    names = [f"n{number}.png" for number in range(12)]
    service.problems = {name: [(503, {"Retry-After": "60"}, {"code": "overloaded"})] for name in names[:3]}
    pick(page, *names, content=png)
    for _ in range(len(names)):
        page.wait_for_function(STOPPED)
        if not page.locator("#banner").is_visible():
            break
        page.locator("#banner-now").click()
    wait_until_done(page, len(names))
    assert sorted(set(service.classified())) == sorted(names)


def test_the_page_waits_for_a_server_that_starts_and_then_lists_its_models(
    browser: Any, service: Any, png: bytes
) -> None:
    service.models_problems = [STARTING]
    service.problems["cat.png"] = [STARTING]
    with opened(browser, service.address) as page:
        page.locator("#banner-title", has_text="The server is starting.").wait_for(state="attached")
        pick(page, "cat.png", content=png)
        see(page, "#headline", "cat")
        page.locator("#picker").wait_for()
        see(page, "#labels", "label0")


def test_a_server_that_is_gone_is_tried_again_by_itself(page: Any, service: Any, png: bytes) -> None:
    service.unplugged.add("cat.png")
    pick(page, "cat.png", content=png)
    see(page, "#headline", "cat")
    assert page.locator("#banner-title").text_content() == "The server cannot be reached."


def test_a_file_that_was_deleted_is_not_taken_for_a_server_that_is_gone(
    page: Any, service: Any, png: bytes, tmp_path: Any
) -> None:
    service.problems["cat.png"] = [(503, {"Retry-After": "60"}, {"code": "overloaded"})]
    file = tmp_path / "cat.png"
    file.write_bytes(png)
    page.set_input_files("#files", [file])
    page.locator("#banner-now").wait_for()
    file.unlink()
    page.locator("#banner-now").click()
    see(page, "#trouble-detail", "can no longer read the file")
    see(page, "#trouble-advice", "Choose it again.")


def test_a_server_with_keys_gets_one_that_stays_in_the_tab_only(browser: Any, service: Any, png: bytes) -> None:
    service.key = "sesame"
    with opened(browser, service.address) as page:
        see(page, "#key-form", "This server asks for an API key.")
        page.locator("#key").fill("wrong")
        page.keyboard.press("Enter")
        see(page, "#key-trouble", "does not know the key")
        page.locator("#key").fill("sesame")
        page.locator("#key-form button").click()
        page.locator("#picker").wait_for()
        pick(page, "cat.png", content=png)
        see(page, "#headline", "cat")
        assert service.requests[-1].key == "sesame"
        for tab, header in [
            ("curl", '-H "X-Api-Key: $RESNET_API_KEY"'),
            ("python", '{"X-Api-Key": os.environ["RESNET_API_KEY"]}'),
            ("javascript", '"X-Api-Key": process.env.RESNET_API_KEY'),
        ]:
            page.locator(f"#tab-{tab}").click()
            see(page, "#snippet", header)
        see(page, "#snippet-note", "RESNET_API_KEY")
        page.reload()
        page.locator("#picker").wait_for()  # the tab still has the key
        assert page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        page.locator("#forget-key").click()
        assert page.evaluate("sessionStorage.length") == 0


def test_another_model_answers_every_image_again_visibly(page: Any, service: Any, png: bytes) -> None:
    service.models = ["animals:1", "plants:1"]
    page.reload()
    page.locator("#picker").wait_for()
    assert page.locator("#model option").all_inner_texts() == ["animals", "plants"]
    names = ["a.png", "b.png", "c.png"]
    pick(page, *names, content=png)
    wait_until_done(page, 3)
    see(page, "#facts", "animals, version 1")
    service.gates = {name: threading.Event() for name in names}
    page.locator("#model").select_option("plants:1")
    see(page, "#progress", "0 of 3 images")
    see(page, "#headline", "Looking")
    assert page.locator("#cards .answered").count() == 0
    for gate in service.gates.values():
        gate.set()
    see(page, "#facts", "plants, version 1")
    wait_until_done(page, 3)
    see(page, "#about-title", "plants")
    see(page, "#snippet", "model=plants")
    assert [request.query["model"] for request in service.requests] == [["animals"]] * 3 + [["plants"]] * 3


def test_versions_of_a_model_have_names_of_their_own_and_answer(page: Any, service: Any, png: bytes) -> None:
    service.models = ["animals:2", "animals:1"]
    page.reload()
    page.locator("#picker").wait_for()
    assert page.locator("#model option").all_inner_texts() == ["animals, version 1", "animals, version 2"]
    assert page.locator("#model").input_value() == "animals:2"
    pick(page, "cat.png", content=png)
    see(page, "#facts", "animals, version 2")
    page.locator("#model").select_option("animals:1")
    see(page, "#facts", "animals, version 1")


def test_a_model_that_was_unloaded_is_replaced_by_the_default(page: Any, service: Any, png: bytes) -> None:
    service.models = ["animals:1", "plants:1"]
    page.reload()
    page.locator("#picker").wait_for()
    page.locator("#model").select_option("plants:1")
    service.models = ["animals:1"]
    service.problems["cat.png"] = [(404, {}, {"code": "model_not_found", "detail": "There is no model plants."})]
    pick(page, "cat.png", content=png)
    see(page, "#facts", "animals, version 1")
    assert page.locator("#model option").all_inner_texts() == ["animals"]


def test_without_the_list_of_models_the_page_still_answers(browser: Any, service: Any, png: bytes) -> None:
    service.models_problems = [(404, {}, {"code": "not_found", "detail": "Nothing here."})]
    with opened(browser, service.address) as page:
        pick(page, "cat.png", content=png)
        see(page, "#headline", "cat")
        assert "model" not in service.requests[0].query
