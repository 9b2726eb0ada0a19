"""POST /explain over ASGI: maps that are the network's own, on the half where the label's object is."""

import base64
import io
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from service.app import create_app
from service.default_model import SHIPPED_MODEL
from service.engine import Engine
from service.heat_map import map_as_png, overlay_as_png
from service.preprocess import image_to_pixels
from service.settings import Settings
from tests.service.conftest import client_of
from tests.service.pictures import encoded, scene
from tests.service.test_classify_route import assert_problem
from tests.service.tiny_model import LABELS, SIDE

pytestmark = pytest.mark.anyio

PNG = {"accept": "image/png"}
SHIPPED = Path(__file__).parents[2] / "models"


def side_by_side(left: tuple[int, int, int], right: tuple[int, int, int]) -> bytes:
    image = Image.new("RGB", (80, 80), left)
    image.paste(right, (40, 0, 80, 80))
    content = io.BytesIO()
    image.save(content, "PNG")
    return content.getvalue()


async def test_the_maps_of_two_labels_lie_on_their_own_halves(client: httpx.AsyncClient) -> None:
    answer = (await client.post("/explain", content=side_by_side((255, 0, 0), (0, 0, 255)))).json()
    assert list(answer) == ["model", "predictions", "crop", "image", "timings_ms"]
    assert len(answer["predictions"]) == 5
    maps = {best["label"]: np.array(best["map"]) for best in answer["predictions"]}
    assert maps["red"].shape == (SIDE, SIDE)
    assert maps["red"][:, : SIDE // 2].min() > maps["red"][:, SIDE // 2 :].max()
    assert maps["blue"][:, SIDE // 2 :].min() > maps["blue"][:, : SIDE // 2].max()


@pytest.mark.parametrize(
    ("size", "crop"), [((80, 80), [0, 0, 80, 80]), ((100, 60), [20, 0, 80, 60]), ((60, 100), [0, 20, 60, 80])]
)
async def test_the_answer_says_which_part_of_the_picture_was_seen(
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
        assert best["png"] == "data:image/png;base64," + base64.b64encode(map_as_png(expected, (SIDE, SIDE))).decode()


async def test_the_shipped_model_explains_itself_as_its_own_file_says() -> None:
    app = create_app(Settings(models=SHIPPED, engine_threads=1))
    content = encoded(scene(), "PNG")
    async with client_of(app) as client:
        answer = (await client.post("/explain", content=content)).json()
    version = answer["model"]["version"]
    engine = Engine((SHIPPED / SHIPPED_MODEL / version / "model.onnx").read_bytes())
    pixels, _ = image_to_pixels(content, shorter_side=32, crop=(32, 32), interpolation="bilinear")
    (maps,) = engine.run(pixels[None], ("class_maps",))
    np.testing.assert_allclose([best["map"] for best in answer["predictions"]], maps[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("query", "place"), [("", 0), ("?label=blue", None), ("?index=3", None)])
async def test_the_overlay_itself_can_be_had(
    model_file: bytes, client: httpx.AsyncClient, query: str, place: int | None
) -> None:
    content = side_by_side((255, 0, 0), (0, 0, 255))
    pixels, _ = image_to_pixels(content, shorter_side=SIDE, crop=(SIDE, SIDE), interpolation="bilinear")
    indices, maps = (rows[0] for rows in Engine(model_file).run(pixels[None], ("top_indices", "class_maps")))
    place = indices.tolist().index(LABELS.index("blue")) if place is None else place
    answer = await client.post("/explain" + query, content=content, headers=PNG)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["vary"] == "accept"
    assert answer.content == overlay_as_png(pixels, maps[place])


@pytest.mark.parametrize("headers", [PNG, {}])
@pytest.mark.parametrize("query", ["label=white", "label=nothing", "index=99", "label="])
async def test_a_label_outside_the_top_five_is_refused(
    client: httpx.AsyncClient, red: bytes, headers: dict[str, str], query: str
) -> None:
    assert_problem(await client.post(f"/explain?{query}", content=red, headers=headers), 422, "label_not_in_top")


async def test_one_label_alone_can_be_asked_for_as_json(client: httpx.AsyncClient, red: bytes) -> None:
    answer = (await client.post("/explain?label=red", files={"file": red})).json()
    assert [best["label"] for best in answer["predictions"]] == ["red"]


async def test_what_cannot_be_answered_is_refused(client: httpx.AsyncClient, red: bytes) -> None:
    assert_problem(await client.post("/explain", content=red, headers={"accept": "text/html"}), 406, "not_acceptable")
    assert_problem(await client.post("/explain?label=red&index=1", content=red), 400, "bad_query")
    assert_problem(await client.post("/explain?index=-1", content=red), 400, "bad_index")
    assert_problem(await client.post("/explain", content=b"text", headers=PNG), 415, "not_an_image")
    assert_problem(await client.post("/explain", content=b""), 400, "no_file")
