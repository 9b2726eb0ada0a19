"""Heat maps: hot where the values are, over the picture that the network saw."""

import io

import numpy as np
import pytest
from PIL import Image

from service.heat_map import map_as_png, overlay_as_png


def opened(content: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    return np.asarray(image)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 6), (6, 1)])
def test_the_hottest_place_lies_where_the_greatest_value_is(row: int, column: int) -> None:
    values = np.full((7, 7), -1, np.float32)
    values[row, column] = 3
    opacity = opened(map_as_png(values, (224, 224)))[..., 3]
    hottest = np.unravel_index(opacity.argmax(), opacity.shape)
    assert (hottest[0] * 7 // opacity.shape[0], hottest[1] * 7 // opacity.shape[1]) == (row, column)
    assert opacity.max() == 153
    assert opacity[opacity.shape[0] // 2, opacity.shape[1] // 2] == 0


@pytest.mark.parametrize("values", [np.full((7, 7), -2, np.float32), np.zeros((7, 7), np.float32)])
def test_a_map_that_speaks_against_the_class_has_no_heat(values: np.ndarray) -> None:
    assert (opened(map_as_png(values, (224, 224)))[..., 3] == 0).all()
    picture = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    assert np.array_equal(opened(overlay_as_png(picture, values)), picture)


def test_a_small_picture_is_enlarged_to_be_looked_at_and_keeps_its_shape() -> None:
    assert opened(map_as_png(np.ones((8, 8), np.float32), (32, 32))).shape == (256, 256, 4)
    assert opened(map_as_png(np.ones((3, 5), np.float32), (100, 150))).shape == (300, 450, 4)
    pixels = np.zeros((300, 400, 3), np.uint8)
    assert opened(overlay_as_png(pixels, np.ones((7, 7), np.float32))).shape == (300, 400, 3)


def test_the_picture_shows_through_where_there_is_no_heat_and_glows_where_there_is() -> None:
    values = np.zeros((2, 8), np.float32)
    values[:, 0] = 1
    pixels = np.full((256, 256, 3), 100, np.uint8)
    overlay = opened(overlay_as_png(pixels, values)).astype(int)
    assert np.abs(overlay[:, 128:] - 100).max() <= 1
    assert overlay[128, 2, 0] > 180
    assert overlay[128, 2, 2] < 90
