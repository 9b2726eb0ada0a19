"""What the page promises to someone with an image, seen through a real browser."""

import base64
import threading
from typing import Any

import pytest

from tests.browser.conftest import pick, see

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]  # on a busy machine

# Hands the page an event as the browser would after a drop or a paste of files or of text.
HAND_OVER = """([event, files, text]) => {
  const transfer = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
  }
  if (text) transfer.setData("text/plain", text);
  const made = event === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
    : new DragEvent(event, { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.body.dispatchEvent(made);
  return made.defaultPrevented;
}"""


def hand_over(page: Any, event: str, *names: str, content: bytes = b"", text: str = "") -> bool:
    encoded = base64.b64encode(content).decode()
    prevented: bool = page.evaluate(HAND_OVER, [event, [[name, encoded] for name in names], text])
    return prevented


def labels(page: Any) -> list[str]:
    found: list[str] = page.locator("#bars .label").all_text_contents()
    return found


def test_a_picked_image_is_shown_with_five_bars_timings_and_where_the_answer_comes_from(
    page: Any, service: Any, png: bytes
) -> None:
    pick(page, "cat.png", content=png)
    see(page, "#headline", "cat")
    assert labels(page) == ["cat", "dog", "ship", "truck", "frog"]
    assert page.locator("#bars .percent").all_text_contents() == ["93.5%", "5.0%", "1.0%", "0.5%", "< 0.1%"]
    widths = page.locator("#bars .bar").evaluate_all("bars => bars.map(bar => bar.style.width)")
    assert widths[:2] == ["93.4512%", "5%"]
    facts = page.locator("#facts").inner_text()
    for fact in ("animals, version 1", "CPUExecutionProvider, fp32", "PNG, 48 × 32 pixels"):
        assert fact in facts
    times = page.locator("#times li").all_inner_texts()
    assert [time.strip().rpartition(" ")[0].rpartition(" ")[0] for time in times] == [
        "upload and network",
        "decode",
        "queue",
        "inference",
        "other",
    ]
    assert times[1].strip() == "decode 1.9 ms"
    grows = page.locator("#stack .step").evaluate_all("steps => steps.map(step => Number(step.style.flexGrow))")
    assert grows[1:4] == [1.9, 0.02, 0.5]
    assert grows[0] > 0
    assert page.locator("#image").evaluate("image => image.decode().then(() => image.naturalWidth)") == 48


def test_the_file_is_sent_exactly_as_it_is(page: Any, service: Any, png: bytes) -> None:
    pick(page, "cat.png", content=png + b"and more")
    see(page, "#headline", "cat")
    assert [request.bytes for request in service.requests] == [png + b"and more"]
    assert service.requests[0].query == {"top_k": ["5"]}


def test_a_dropped_image_is_answered_and_the_browser_does_not_open_it(page: Any, service: Any, png: bytes) -> None:
    assert hand_over(page, "dragover", "cat.png", content=png)
    assert page.locator("body.over").count() == 1
    assert hand_over(page, "drop", "cat.png", content=png)
    see(page, "#headline", "cat")
    assert page.locator("body.over").count() == 0


def test_a_pasted_image_is_answered(page: Any, service: Any, png: bytes) -> None:
    hand_over(page, "paste", "image.png", content=png)
    see(page, "#headline", "image")


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_an_address_or_text_is_answered_in_words(page: Any, service: Any, png: bytes, event: str) -> None:
    hand_over(page, event, text="https://example.org/cat.jpg")
    see(
        page, "#remark", "This is an address, not an image: https://example.org/cat.jpg. The server opens no addresses."
    )
    hand_over(page, event, text="hello")
    see(page, "#remark", "This is text, not an image.")
    assert service.requests == []
    pick(page, "cat.png", content=png)
    see(page, "#headline", "cat")
    assert page.locator("#remark").count() == 0


def test_each_sample_is_answered_with_one_click(page: Any, service: Any) -> None:
    names = ["espresso", "ladybug", "lemons", "mushroom", "school-bus", "cat"]
    for place, name in enumerate(names):
        page.locator("#samples button").nth(place).click()
        see(page, "#headline", name)
    assert page.locator("#samples img").evaluate_all("images => images.every(image => image.naturalWidth === 320)")


def test_a_late_answer_does_not_replace_a_newer_one(page: Any, service: Any, png: bytes) -> None:
    service.gates["slow.png"] = threading.Event()
    pick(page, "slow.png", content=png)
    see(page, "#headline", "Looking")
    pick(page, "fast.png", content=png)
    see(page, "#headline", "fast")
    service.gates["slow.png"].set()
    see(page, "#cards li:nth-child(2) .label", "slow")  # it has come in, for its own image
    assert page.locator("#headline").inner_text() == "fast"
    assert labels(page)[0] == "fast"


@pytest.mark.parametrize(
    ("status", "code", "detail", "advice"),
    [
        (413, "too_large", "An image may have at most 20 MiB.", "Make the image smaller"),
        (415, "not_an_image", "This is a PDF file.", "Save the image as JPEG or PNG"),
        (422, "bad_image", "The image `ends` too early.", "save it again"),
    ],
)
def test_a_refusal_is_shown_in_plain_words_with_what_to_do_and_is_not_to_be_repeated(
    page: Any, service: Any, png: bytes, status: int, code: str, detail: str, advice: str
) -> None:
    service.problems["bad.png"] = [(status, {}, {"code": code, "detail": detail})] * 2
    pick(page, "bad.png", content=png)
    see(page, "#trouble-detail", detail.replace("`", ""))
    see(page, "#trouble-advice", advice)
    assert page.locator("#headline").inner_text() == "No answer"
    assert not page.locator("#again").is_visible()
    assert not page.locator("#bars").is_visible()
    pick(page, "cat.png", content=png)
    see(page, "#headline", "cat")
    assert not page.locator("#trouble").is_visible()
    assert page.locator("#cards li:nth-child(2) .label").inner_text() == "No answer"


@pytest.mark.parametrize(("status", "words"), [(413, "larger than the server accepts"), (418, "status 418")])
def test_a_refusal_without_words_is_explained(page: Any, service: Any, png: bytes, status: int, words: str) -> None:
    service.problems["bad.png"] = [(status, {}, {})] * 2
    pick(page, "bad.png", content=png)
    see(page, "#trouble-detail", words)


def test_a_failure_of_the_model_can_be_tried_again(page: Any, service: Any, png: bytes) -> None:
    service.problems["cat.png"] = [(500, {}, {"code": "engine_failed", "detail": "Inference failed."})]
    pick(page, "cat.png", content=png)
    see(page, "#trouble-advice", "Try another image.")
    page.locator("#again").click()
    see(page, "#headline", "cat")


def test_a_file_that_the_browser_cannot_show_is_still_sent(page: Any, service: Any) -> None:
    pick(page, "odd.png", content=b"not an image")
    see(page, "#headline", "odd")
    page.locator("#broken").wait_for()
    assert page.locator(".thumbnail").inner_text() == "no preview"


def test_names_and_labels_are_shown_as_text_only(page: Any, service: Any, png: bytes) -> None:
    pick(page, "<img src=x onerror=alert(1)>.png", content=png)
    see(page, "#headline", "<img src=x onerror=alert(1)>")


def test_an_image_that_is_not_recognized_says_so(page: Any, service: Any, png: bytes) -> None:
    service.unsure.add("odd.png")
    pick(page, "odd.png", content=png)
    see(page, "#headline", "Not sure")
    see(page, "#doubt", "best guesses")
    assert labels(page)[0] == "odd"
    assert page.locator("#cards .label").inner_text() == "Not sure"


def test_all_of_it_works_from_the_keyboard(page: Any, service: Any, png: bytes) -> None:
    page.on("filechooser", lambda _: None)  # so that the browser hands choosers over well before the key is pressed
    for _ in range(5):  # model, three links, the file field
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    assert page.locator("label.button").evaluate("label => getComputedStyle(label).outlineStyle") == "solid"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([{"name": "cat.png", "mimeType": "image/png", "buffer": png}])
    see(page, "#headline", "cat")
    page.locator("#bars button").nth(1).focus()
    page.keyboard.press("Enter")
    page.locator("#heat").wait_for()
    assert page.locator('#bars [aria-pressed="true"] .label').inner_text() == "dog"
    page.keyboard.press("Escape")
    page.locator("#heat").wait_for(state="hidden")


def test_a_screen_reader_gets_the_answer_and_the_error(page: Any, service: Any, png: bytes) -> None:
    pick(page, "cat.png", content=png)
    page.get_by_role("status").filter(has_text="cat.png: cat 93.5%, dog 5.0%").wait_for(state="attached")
    service.problems["bad.png"] = [(422, {}, {"code": "bad_image", "detail": "The image ends too early."})] * 2
    pick(page, "bad.png", content=png)
    page.get_by_role("alert").filter(has_text="The image ends too early.").wait_for()


@pytest.mark.parametrize("width", [320, 700, 1180])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window_in_light_and_dark(
    page: Any, service: Any, png: bytes, width: int, scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 700})
    pick(page, "a_label_that_is_one_very_long_word_without_any_space.png", "b.png", content=png)
    see(page, "#headline", "a_label")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground, ink = page.evaluate(
        "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
    )
    assert (lightness(ground) > lightness(ink)) == (scheme == "light")


def lightness(colour: str) -> int:
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
