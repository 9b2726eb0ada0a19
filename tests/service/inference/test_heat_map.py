"""Heat maps: hot where the values are, over the part of the image that the network saw."""

import io

import numpy as np
import pytest
from PIL import Image

from service.inference.heat_map import map_as_png, overlay_as_png

GREY = np.full((180, 320, 3), 100, np.uint8)


def opened(content: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(content))
    assert image.format == "PNG"
    return np.asarray(image)


def painted(pixels: np.ndarray, values: np.ndarray, crop: tuple[float, float, float, float]) -> np.ndarray:
    """How far each pixel is from what it was."""
    drawn: np.ndarray = opened(overlay_as_png(pixels, values, crop)).astype(int)
    return np.abs(drawn - pixels).max(axis=2)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (4, 4), (3, 5), (1, 1), (64, 40)])
def test_a_map_is_an_image_of_a_pixel_for_each_place(height: int, width: int) -> None:
    values = np.linspace(-1, 3, height * width, dtype=np.float32).reshape(height, width)
    pixels = opened(map_as_png(values))
    heat = values.clip(0) / max(values.max(), 1e-30)
    assert pixels.shape == (height, width, 4)
    np.testing.assert_allclose(pixels[..., 3], 153 * heat, atol=1)
    assert (pixels[heat == 1] == (255, 230, 60, 153)).all()
    assert (pixels[heat == 0] == (40, 10, 120, 0)).all()


@pytest.mark.parametrize("value", [-3e38, -2, 0])
def test_a_map_that_speaks_against_the_class_has_no_heat(value: float) -> None:
    values = np.full((7, 7), value, np.float32)
    assert (opened(map_as_png(values))[..., 3] == 0).all()
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    assert np.array_equal(opened(overlay_as_png(image, values, (0, 0, 256, 256))), image)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 6), (6, 1)])
def test_the_hottest_place_lies_where_the_greatest_value_is(row: int, column: int) -> None:
    values = np.full((7, 7), -1, np.float32)
    values[row, column] = 3
    heat = painted(GREY[:, :180], values, (20, 0, 160, 140))[:140, 20:160]
    hottest = np.unravel_index(heat.argmax(), heat.shape)
    assert (hottest[0] // 20, hottest[1] // 20) == (row, column)
    assert heat[70, 70] == 0


def test_a_map_is_interpolated_between_its_places() -> None:
    values = np.zeros((4, 4), np.float32)
    values[:, 3] = 1
    heat = painted(GREY, values, (0, 0, 320, 180))[90]
    assert (np.diff(heat[200:280]) >= 0).all()
    assert len(np.unique(heat[200:280])) > 30


def test_what_the_network_did_not_see_is_dim_and_has_no_heat() -> None:
    drawn = opened(overlay_as_png(GREY, np.ones((7, 7), np.float32), (70.2, 0, 249.8, 180)))
    assert (drawn[:, :70] == 50).all() and (drawn[:, 250:] == 50).all()
    assert (drawn[:, 70:250] == (193, 178, 76)).all()


def test_a_map_that_reaches_beyond_the_image_keeps_its_place() -> None:
    """A model may see more than the image: black around it."""
    values = np.zeros((4, 4), np.float32)
    values[:, 1] = 1  # of what lies from -160 to 480, so from 0 to 160
    heat = painted(GREY, values, (-160, -230, 480, 410))
    assert heat[90, 80] == heat.max() > 80
    assert heat[90, 240] == 0


@pytest.mark.parametrize("crop", [(159.98, 0.0, 160.02, 1.0), (159.6, 0.2, 159.7, 0.3), (0.0, 0.0, 320.0, 1e5)])
def test_a_crop_of_less_than_a_pixel_is_a_pixel(crop: tuple[float, float, float, float]) -> None:
    heat = painted(np.full((1, 320, 3), 255, np.uint8), np.ones((7, 7), np.float32), crop)
    assert heat.shape == (1, 320)
    assert heat[0, 159] > 0
