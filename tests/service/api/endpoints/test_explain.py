"""POST /explain over ASGI: maps that are the network's own, on the half where the label's object is."""

import asyncio
import base64
import io
import re
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import service.api.endpoints.explain
from service.api.endpoints.inference import InferenceService
from service.app import create_app
from service.engine.engine import Engine
from service.http.request_context import RequestContext
from service.images.preprocessing import image_to_pixels
from service.inference.class_activation import Explanation
from service.inference.heat_map import map_as_png
from service.inference.results import Classification
from service.model_files.default_model import SHIPPED_MODEL
from service.settings import Settings
from tests.service.api.endpoints.test_classify import assert_problem
from tests.service.conftest import client_of
from tests.support.image_files.images import encoded, exif, scene
from tests.support.model_files.tiny_model import SIDE

pytestmark = pytest.mark.anyio

PNG = {"accept": "image/png"}
SHIPPED = Path(__file__).parents[4] / "models"


RED, BLUE = (255, 0, 0), (0, 0, 255)
HOT_RED = (255, 138, 36)  # as red at all of its heat


def halves(left: tuple[int, int, int], right: tuple[int, int, int], size: tuple[int, int] = (80, 80)) -> Image.Image:
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def side_by_side(left: tuple[int, int, int], right: tuple[int, int, int]) -> bytes:
    return encoded(halves(left, right), "PNG")


async def drawn(client: httpx.AsyncClient, content: bytes, label: str = "red") -> np.ndarray:
    answer = await client.post(f"/explain?label={label}", content=content, headers=PNG)
    assert answer.headers["content-type"] == "image/png", answer.text
    image = Image.open(io.BytesIO(answer.content))
    assert (image.format, image.mode) == ("PNG", "RGB")
    return np.asarray(image)


def is_near(pixels: np.ndarray, colour: tuple[int, int, int], tolerance: int = 3) -> bool:
    return bool((np.abs(pixels.astype(int) - colour) <= tolerance).all())


async def test_the_maps_of_two_labels_lie_on_their_own_halves(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/explain", content=side_by_side((255, 0, 0), (0, 0, 255)))).json()
    assert list(answer) == ["model", "predictions", "confident", "crop", "image", "timings_ms"]
    assert len(answer["predictions"]) == 5
    maps = {best["label"]: np.array(best["map"]) for best in answer["predictions"]}
    assert maps["red"].shape == (SIDE, SIDE)
    assert maps["red"][:, : SIDE // 2].min() > maps["red"][:, SIDE // 2 :].max()
    assert maps["blue"][:, SIDE // 2 :].min() > maps["blue"][:, : SIDE // 2].max()


@pytest.mark.parametrize(
    ("size", "crop"), [((80, 80), [0, 0, 80, 80]), ((100, 60), [20, 0, 80, 60]), ((60, 100), [0, 20, 60, 80])]
)
async def test_the_answer_says_which_part_of_the_image_was_seen(
    client: httpx.AsyncClient, size: tuple[int, int], crop: list[float]
) -> None:
    answer = (await client.post("/explain", content=encoded(Image.new("RGB", size), "PNG"))).json()
    assert answer["crop"] == pytest.approx(crop, abs=60 / SIDE)  # one pixel of the network


async def test_each_map_is_the_one_that_the_model_gives(model_file: bytes, client: httpx.AsyncClient) -> None:
    content = side_by_side((200, 30, 0), (10, 60, 255))
    pixels, _ = image_to_pixels(content, shorter_side=SIDE, crop=(SIDE, SIDE), interpolation="bilinear")
    indices, maps = (rows[0] for rows in Engine(model_file).run(pixels[None], ("top_indices", "class_maps")))
    answer = (await client.post("/explain", content=content)).json()
    assert [best["index"] for best in answer["predictions"]] == indices.tolist()
    for best, expected in zip(answer["predictions"], maps, strict=True):
        np.testing.assert_array_equal(np.array(best["map"], np.float32), expected)
        assert best["png"] == "data:image/png;base64," + base64.b64encode(map_as_png(expected)).decode()


async def test_the_shipped_model_explains_itself_as_its_own_file_says() -> None:
    app = create_app(Settings(models=SHIPPED, engine_threads=1))
    content = encoded(scene(), "PNG")
    async with client_of(app) as client:
        answer = (await client.post("/explain", content=content)).json()
        card = app.state.components.registry.default().card
    version = answer["model"]["version"]
    engine = Engine((SHIPPED / SHIPPED_MODEL / version / "model.onnx").read_bytes())
    given = card.preprocessing
    pixels, _ = image_to_pixels(
        content, shorter_side=given.shorter_side, crop=given.crop, interpolation=given.interpolation
    )
    (maps,) = engine.run(pixels[None], ("class_maps",))
    np.testing.assert_allclose([best["map"] for best in answer["predictions"]], maps[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("query", "left", "right"), [("label=red", HOT_RED, BLUE), ("index=3", RED, (153, 138, 138))])
async def test_the_map_of_a_label_is_drawn_over_the_image(
    client: httpx.AsyncClient, query: str, left: tuple[int, int, int], right: tuple[int, int, int]
) -> None:
    content = side_by_side(RED, BLUE)
    answer = await client.post(f"/explain?{query}", content=content, headers=PNG)
    assert answer.headers["vary"] == "accept"
    pixels = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert pixels.shape == (320, 320, 3)  # 80 times four: what is small is enlarged to be looked at
    assert is_near(pixels[:, :100], left)
    assert is_near(pixels[:, 220:], right)


async def test_without_a_label_the_best_one_is_drawn(client: httpx.AsyncClient) -> None:
    content = encoded(scene(), "PNG")
    best = (await client.post("/explain", content=content)).json()["predictions"][0]["label"]
    first = await client.post("/explain", content=content, headers=PNG)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(first.content))), await drawn(client, content, best))


async def test_what_the_network_did_not_see_is_dim(client: httpx.AsyncClient) -> None:
    wide = await drawn(client, encoded(halves(RED, BLUE, (600, 300)), "PNG"))
    assert wide.shape == (256, 512, 3)
    assert is_near(wide[:, :127], (128, 0, 0))
    assert is_near(wide[:, 129:210], HOT_RED)
    assert is_near(wide[:, 300:383], BLUE)
    assert is_near(wide[:, 385:], (0, 0, 128))
    tall = await drawn(client, encoded(halves(RED, BLUE, (300, 600)), "PNG"))
    assert tall.shape == (512, 256, 3)
    assert is_near(tall[:127, :100], (128, 0, 0))
    assert is_near(tall[129:383, :90], HOT_RED)
    assert is_near(tall[385:, 150:], (0, 0, 128))


@pytest.mark.parametrize("orientation", range(1, 9))
async def test_the_image_is_drawn_upright(client: httpx.AsyncClient, orientation: int) -> None:
    image = halves(RED, (255, 255, 0), (300, 200))
    image.paste(BLUE, (0, 0, 300, 90))
    stored = image
    for step in {2: (0,), 3: (3,), 4: (1,), 5: (5,), 6: (2,), 7: (6,), 8: (4,)}.get(orientation, ()):
        stored = stored.transpose(Image.Transpose(step))
    turned = encoded(stored, "PNG", exif=exif(orientation))
    assert np.array_equal(await drawn(client, turned), await drawn(client, encoded(image, "PNG")))


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((8000, 5000), (512, 320)),  # above 26 million pixels: decoded at a part of its size
        ((4001, 2999), (512, 384)),
        ((700, 9000), (40, 512)),
        ((513, 512), (512, 511)),
        ((300, 200), (300, 200)),
        ((100, 60), (300, 180)),
    ],
)
async def test_a_jpeg_of_any_size_has_its_map_in_the_same_place(
    models: Path, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    content = encoded(halves(RED, BLUE, size), "JPEG")
    async with client_of(create_app(Settings(models=models, engine_threads=1))) as client:
        crop = (await client.post("/explain", content=content)).json()["crop"]
        pixels = await drawn(client, content)
    assert pixels.shape == (*shown[::-1], 3)
    left, top, right, bottom = (round(edge * shown[0] / size[0]) for edge in crop)
    row, quarter = pixels[(top + bottom) // 2], (right - left) // 4
    assert is_near(row[left + 2 : left + quarter], HOT_RED, 6)
    assert is_near(row[right - quarter : right - 2], BLUE, 6)
    assert is_near(row[: max(0, left - 2)], (128, 0, 0), 6)
    assert is_near(row[right + 2 :], (0, 0, 128), 6)
    assert is_near(pixels[: max(0, top - 2), :quarter], (128, 0, 0), 6)


@pytest.mark.parametrize(("size", "shown"), [((1, 1), (256, 256)), ((3, 2), (258, 172)), ((4000, 1), (512, 1))])
async def test_an_image_of_hardly_any_pixels_is_drawn(
    client: httpx.AsyncClient, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    pixels = await drawn(client, encoded(Image.new("RGB", size, RED), "PNG"))
    assert pixels.shape == (*shown[::-1], 3)
    assert is_near(pixels[shown[1] // 2, shown[0] // 2], HOT_RED)


async def test_transparency_is_drawn_on_white(client: httpx.AsyncClient) -> None:
    image = halves(RED, (0, 0, 0), (300, 200)).convert("RGBA")
    image.putalpha(Image.fromarray(np.repeat(np.uint8([[255] * 150 + [0] * 150]), 200, axis=0)))
    pixels = await drawn(client, encoded(image, "PNG"))
    assert is_near(pixels[:, :45], (128, 0, 0))
    assert is_near(pixels[:, 260:], (128, 128, 128))
    assert is_near(pixels[:, 60:120], HOT_RED)


async def test_a_grey_image_stays_grey_where_there_is_no_heat(client: httpx.AsyncClient) -> None:
    image = Image.new("L", (300, 200), 255)
    image.paste(0, (0, 0, 120, 200))
    pixels = await drawn(client, encoded(image, "JPEG"), "white")
    assert is_near(pixels[:, :75], (0, 0, 0))
    assert is_near(pixels[:, 255:], (128, 128, 128))
    assert is_near(pixels[:, 200:245], (255, 240, 138))


async def test_the_limits_of_the_server_hold_for_drawing_too(models: Path) -> None:
    long = encoded(Image.new("RGB", (13_000, 2), RED), "PNG")
    async with client_of(create_app(Settings(models=models, engine_threads=1, max_side=13_000))) as client:
        assert (await drawn(client, long)).shape == (1, 512, 3)


@pytest.mark.parametrize("headers", [PNG, {}])
async def test_what_drawing_took_is_in_server_timing(
    client: httpx.AsyncClient, red: bytes, headers: dict[str, str]
) -> None:
    answer = await client.post("/explain", content=red, headers=headers)
    entries = re.findall(r"(\w+);dur=(\d+\.\d\d)", answer.headers["server-timing"])
    assert [name for name, _ in entries] == ["decode", "queue", "inference", "draw", "total"]
    times = {name: float(time) for name, time in entries}
    assert 0 < times["draw"] < times["total"]
    assert "draw" not in (await client.post("/classify", content=red)).headers["server-timing"]


async def test_drawings_wait_in_bounded_number_and_beside_the_event_loop(
    client: httpx.AsyncClient, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = [], threading.Event()

    def draw(*_: object) -> bytes:
        begun.append(threading.current_thread())
        gate.wait(30)
        return b"drawn"

    monkeypatch.setattr(service.api.endpoints.explain, "overlay", draw)
    monkeypatch.setattr(service.api.endpoints.explain, "_MOST_WAITING", 3)
    asked = [asyncio.create_task(client.post("/explain", content=red, headers=PNG)) for _ in range(4)]
    (refused,), waiting = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    assert_problem(refused.result(), 503, "overloaded")
    assert len(begun) == 1
    assert (await client.post("/explain", content=red)).status_code == 200  # numbers wait for no drawing
    gate.set()
    assert [answer.content for answer in await asyncio.gather(*waiting)] == [b"drawn"] * 3
    assert threading.main_thread() not in begun


@pytest.mark.parametrize(
    ("has_left", "seconds_left", "code"), [(True, 9, "client_left"), (False, -1, "expired"), (False, 9, None)]
)
async def test_a_drawing_that_is_too_late_does_not_begin(
    monkeypatch: pytest.MonkeyPatch,
    client: httpx.AsyncClient,
    red: bytes,
    has_left: bool,
    seconds_left: float,
    code: str | None,
) -> None:
    begun = []
    classify = InferenceService.classify

    async def classify_late(serving: InferenceService, *question: Any, **further: Any) -> Classification:
        classification = await classify(serving, *question, **further)
        context: RequestContext = question[2]
        context.client_has_left = lambda: has_left
        context.expires_at = time.monotonic() + seconds_left
        return classification

    monkeypatch.setattr(InferenceService, "classify", classify_late)
    monkeypatch.setattr(service.api.endpoints.explain, "overlay", lambda *_: begun.append(True) or b"drawn")
    answer = await client.post("/explain", content=red, headers=PNG)
    if code is None:
        assert (answer.content, begun) == (b"drawn", [True])
    else:
        assert_problem(answer, 503, code)
        assert begun == []


async def test_large_maps_are_made_beside_the_event_loop(
    client: httpx.AsyncClient, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = (await client.post("/explain", content=red)).json()
    threads = []
    make = service.api.endpoints.explain.explanation_as_json

    def note(explanation: Explanation) -> dict[str, Any]:
        threads.append(threading.current_thread())
        return make(explanation)

    monkeypatch.setattr(service.api.endpoints.explain, "explanation_as_json", note)
    monkeypatch.setattr(service.api.endpoints.explain, "_MOST_CELLS", 5 * SIDE * SIDE - 1)
    assert (await client.post("/explain", content=red)).json()["predictions"] == usual["predictions"]
    assert threading.main_thread() not in threads
    await client.post("/explain?label=red", content=red)
    assert threads[5:] == [threading.main_thread()]


@pytest.mark.parametrize("headers", [PNG, {}])
@pytest.mark.parametrize("query", ["label=white", "label=nothing", "index=99", "label="])
async def test_a_label_outside_the_top_five_is_refused(
    client: httpx.AsyncClient, red: bytes, headers: dict[str, str], query: str
) -> None:
    assert_problem(await client.post(f"/explain?{query}", content=red, headers=headers), 422, "label_not_in_top")


async def test_one_label_can_be_requested_as_json(client: httpx.AsyncClient, red: bytes) -> None:
    answer = (await client.post("/explain?label=red", files={"file": red})).json()
    assert [best["label"] for best in answer["predictions"]] == ["red"]


async def test_what_cannot_be_answered_is_refused(client: httpx.AsyncClient, red: bytes) -> None:
    assert_problem(await client.post("/explain", content=red, headers={"accept": "text/html"}), 406, "not_acceptable")
    assert_problem(await client.post("/explain?label=red&index=1", content=red), 400, "bad_query")
    assert_problem(await client.post("/explain?index=-1", content=red), 400, "bad_index")
    assert_problem(await client.post("/explain", content=b"text", headers=PNG), 415, "not_an_image")
    assert_problem(await client.post("/explain", content=b""), 400, "no_file")
