"""What the page promises to someone with an image, seen through a real browser."""

import base64
import threading
from typing import Any

import pytest

pytestmark = pytest.mark.browser

# Hands the page an event as the browser would after a drop or a paste of files.
HAND_OVER = """([event, files]) => {
  const transfer = new DataTransfer();
  for (const [name, content] of files) {
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    transfer.items.add(new File([bytes], name, { type: "image/png" }));
  }
  const made = event === "paste"
    ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true })
    : new DragEvent(event, { dataTransfer: transfer, bubbles: true, cancelable: true });
  document.body.dispatchEvent(made);
  return made.defaultPrevented;
}"""


def hand_over(page: Any, event: str, *names: str, content: bytes) -> bool:
    encoded = base64.b64encode(content).decode()
    prevented: bool = page.evaluate(HAND_OVER, [event, [[name, encoded] for name in names]])
    return prevented


def pick(page: Any, *names: str, content: bytes) -> None:
    page.set_input_files("#files", [{"name": name, "mimeType": "image/png", "buffer": content} for name in names])


def see(page: Any, selector: str, text: str) -> None:
    page.locator(selector, has_text=text).wait_for()


def labels(page: Any) -> list[str]:
    found: list[str] = page.locator("#bars .label").all_text_contents()
    return found


def test_a_picked_image_is_shown_with_five_bars_and_where_the_answer_comes_from(
    page: Any, service: Any, png: bytes
) -> None:
    pick(page, "cat.png", content=png)
    see(page, "h2", "cat")
    assert labels(page) == ["cat", "dog", "ship", "truck", "frog"]
    assert page.locator("#bars .percent").all_text_contents() == ["93.5%", "5.0%", "1.0%", "0.5%", "< 0.1%"]
    widths = page.locator("#bars .bar").evaluate_all("bars => bars.map(bar => bar.style.width)")
    assert widths[:2] == ["93.4512%", "5%"]
    facts = page.locator("#facts").inner_text()
    for fact in [
        "animals, version 1",
        "CPUExecutionProvider, fp32",
        "PNG, 48 × 32",
        "decode 1.9\u00a0ms",
        "inference 0.5\u00a0ms",
    ]:
        assert fact in facts
    assert page.locator("#image").evaluate("image => image.decode().then(() => image.naturalWidth)") == 48


def test_the_file_is_sent_exactly_as_it_is(page: Any, service: Any, png: bytes) -> None:
    pick(page, "cat.png", content=png + b"and more")
    see(page, "h2", "cat")
    assert [asked.bytes for asked in service.asked] == [png + b"and more"]
    assert service.asked[0].query["top_k"] == ["5"]


def test_a_dropped_image_is_answered_and_the_browser_does_not_open_it(page: Any, service: Any, png: bytes) -> None:
    assert hand_over(page, "dragover", "cat.png", content=png)
    assert "over" in page.locator("#zone").get_attribute("class")
    assert hand_over(page, "drop", "cat.png", content=png)
    see(page, "h2", "cat")
    assert "over" not in page.locator("#zone").get_attribute("class")


def test_a_pasted_image_is_answered(page: Any, service: Any, png: bytes) -> None:
    hand_over(page, "paste", "image.png", content=png)
    see(page, "h2", "image")


def test_pasted_text_changes_nothing(page: Any, service: Any, png: bytes) -> None:
    hand_over(page, "paste", content=png)
    assert page.locator("h2").inner_text() == "What is it?"
    assert service.asked == []


def test_several_images_are_answered_one_after_another_and_each_can_be_looked_at(
    page: Any, service: Any, png: bytes
) -> None:
    service.gates["ant.png"] = threading.Event()
    pick(page, "ant.png", "bee.png", "cow.png", content=png)
    see(page, "h2", "Looking")
    assert [asked.name for asked in service.asked] in ([], ["ant.png"])
    service.gates["ant.png"].set()
    see(page, "#strip li:nth-child(3)", "cow")
    assert [asked.name for asked in service.asked] == ["ant.png", "bee.png", "cow.png"]
    assert page.locator("h2").inner_text() == "ant"
    page.locator("#strip li:nth-child(2) button").click()
    assert page.locator("h2").inner_text() == "bee"
    assert page.locator('#strip [aria-current="true"]').inner_text() == "bee"


def test_a_late_answer_does_not_replace_a_newer_one(page: Any, service: Any, png: bytes) -> None:
    service.gates["slow.png"] = threading.Event()
    pick(page, "slow.png", content=png)
    see(page, "h2", "Looking")
    pick(page, "fast.png", content=png)
    see(page, "h2", "fast")
    service.gates["slow.png"].set()
    see(page, "#strip li:nth-child(2)", "slow")  # it has come in, for its own image
    assert page.locator("h2").inner_text() == "fast"
    assert labels(page)[0] == "fast"


@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (413, "The file has more than 20 MiB."),
        (415, "This is neither JPEG nor PNG nor WebP."),
        (422, "The image ends too early."),
    ],
)
def test_a_refusal_is_shown_in_the_words_of_the_service_and_is_not_to_be_repeated(
    page: Any, service: Any, png: bytes, status: int, detail: str
) -> None:
    service.problems["bad.png"] = [(status, {}, {"status": status, "detail": detail})]
    pick(page, "bad.png", content=png)
    see(page, "#trouble", detail)
    assert page.locator("h2").inner_text() == "No answer"
    assert not page.locator("#again").is_visible()
    assert not page.locator("#bars").is_visible()


def test_a_busy_service_says_when_to_come_back_and_trying_again_works(page: Any, service: Any, png: bytes) -> None:
    service.problems["cat.png"] = [(503, {"Retry-After": "2"}, {"detail": "Too much is already waiting."})]
    pick(page, "cat.png", content=png)
    see(page, "#trouble", "Too much is already waiting.")
    see(page, "#hint", "Try again in 2 s")
    page.locator("#again").click()
    see(page, "h2", "cat")
    assert not page.locator("#trouble").is_visible()


@pytest.mark.parametrize(("status", "words"), [(413, "larger than the service accepts"), (502, "status 502")])
def test_a_refusal_without_words_is_explained(page: Any, service: Any, png: bytes, status: int, words: str) -> None:
    service.problems["bad.png"] = [(status, {}, {})]
    pick(page, "bad.png", content=png)
    see(page, "#detail", words)


def test_a_broken_connection_is_shown_and_can_be_tried_again(page: Any, service: Any, png: bytes) -> None:
    service.unplugged.add("cat.png")
    pick(page, "cat.png", content=png)
    see(page, "#detail", "cannot be reached")
    page.locator("#again").click()
    see(page, "h2", "cat")


def test_a_trouble_is_gone_once_the_next_image_is_answered(page: Any, service: Any, png: bytes) -> None:
    service.problems["bad.png"] = [(422, {}, {"detail": "No."})]
    pick(page, "bad.png", content=png)
    see(page, "#detail", "No.")
    pick(page, "cat.png", content=png)
    see(page, "h2", "cat")
    assert not page.locator("#trouble").is_visible()
    assert page.locator("#strip li:nth-child(2)").inner_text() == "No answer"


def test_a_file_that_the_browser_cannot_show_is_still_sent(page: Any, service: Any) -> None:
    pick(page, "odd.png", content=b"not an image")
    see(page, "h2", "odd")
    page.locator("#broken").wait_for()


def test_names_and_labels_are_shown_as_text_only(page: Any, service: Any, png: bytes) -> None:
    pick(page, "<img src=x onerror=alert(1)>.png", content=png)
    see(page, "h2", "<img src=x onerror=alert(1)>")


def test_with_one_model_there_is_nothing_to_choose(page: Any, service: Any, png: bytes) -> None:
    see(page, "#known", "label0")
    assert not page.locator("#model").is_visible()
    pick(page, "cat.png", content=png)
    see(page, "h2", "cat")
    assert "model" not in service.asked[0].query


def test_before_any_image_the_page_says_what_the_model_knows(page: Any) -> None:
    see(page, "#known", "This model knows 20 labels")
    assert page.locator("#known").inner_text().endswith("label10, label11 …")


def test_without_the_list_of_models_the_page_still_answers(page: Any, service: Any, png: bytes) -> None:
    page.route("**/models", lambda route: route.abort())
    page.reload()
    pick(page, "cat.png", content=png)
    see(page, "h2", "cat")


def test_with_several_models_the_default_is_chosen_and_another_answers_the_same_image(
    page: Any, service: Any, png: bytes
) -> None:
    service.models = ["aaa-plants", "animals"]
    page.reload()
    page.locator("#model").wait_for()
    assert page.locator("#model").input_value() == "animals"
    pick(page, "cat.png", content=png)
    see(page, "#facts", "animals, version 1")
    page.locator("#model").select_option("aaa-plants")
    see(page, "#facts", "aaa-plants, version 1")
    assert [asked.query["model"] for asked in service.asked] == [["animals"], ["aaa-plants"]]
    assert "'" + service.address + "/classify?model=aaa-plants'" in page.locator("#curl").inner_text()


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("cat.png", "file=@cat.png"),
        ("my cat; it's.png", """'file=@"my cat; it'\\''s.png"'"""),
        ("-x.png", "file=@-x.png"),
    ],
)
def test_the_command_line_for_the_same_answer_is_shown(
    page: Any, service: Any, png: bytes, name: str, field: str
) -> None:
    pick(page, name, content=png)
    see(page, "h2", name.split(".", maxsplit=1)[0])
    assert page.locator("#curl").inner_text() == f"curl -F {field} {service.address}/classify"


def test_all_of_it_works_from_the_keyboard(page: Any, service: Any, png: bytes) -> None:
    page.on("filechooser", lambda _: None)  # so that the browser hands choosers over well before the key is pressed
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "files"
    outline = page.locator("#zone").evaluate("zone => getComputedStyle(zone).outlineStyle")
    assert outline == "solid"
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files([{"name": "cat.png", "mimeType": "image/png", "buffer": png}])
    see(page, "h2", "cat")


def test_a_screen_reader_gets_the_answer_and_the_error(page: Any, service: Any, png: bytes) -> None:
    pick(page, "cat.png", content=png)
    page.get_by_role("status").filter(has_text="cat.png: cat 93.5%, dog 5.0%").wait_for(state="attached")
    service.problems["bad.png"] = [(422, {}, {"detail": "The image ends too early."})]
    pick(page, "bad.png", content=png)
    page.get_by_role("alert").filter(has_text="The image ends too early.").wait_for()


def test_memory_of_images_is_given_back(page: Any, service: Any, png: bytes) -> None:
    page.evaluate("""() => {
      window.open_addresses = new Set();
      const { createObjectURL: create, revokeObjectURL: revoke } = URL;
      URL.createObjectURL = (file) => { const made = create(file); window.open_addresses.add(made); return made; };
      URL.revokeObjectURL = (address) => { window.open_addresses.delete(address); revoke(address); };
    }""")
    for turn in range(6):
        pick(page, *[f"n{turn}x{number}.png" for number in range(5)], content=png)
        see(page, "h2", f"n{turn}x0")
    assert page.locator("#strip li").count() == 24
    assert page.evaluate("window.open_addresses.size") == 24


@pytest.mark.parametrize("width", [360, 700, 1180])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_its_window_in_light_and_dark(
    page: Any, service: Any, png: bytes, width: int, scheme: str
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 700})
    pick(page, "a_label_that_is_one_very_long_word_without_any_space.png", content=png)
    see(page, "h2", "a_label")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground, ink = page.evaluate(
        "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.body))"
    )
    assert (lightness(ground) > lightness(ink)) == (scheme == "light")


def lightness(colour: str) -> int:
    return sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(","))
