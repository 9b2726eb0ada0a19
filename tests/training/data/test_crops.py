import math

import numpy as np
import pytest

from training.data.crops import CropSpec, random_of

SIZES = [(500, 375), (40, 300), (64, 64), (1000, 30)]


def boxes(crop: CropSpec, width: int, height: int, count: int = 400) -> np.ndarray:
    return np.array([crop.box(width, height, random_of(0, step, 3)) for step in range(count)])


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("crop", ["scale_jitter", "random_resized"])
def test_windows_lie_inside_the_image(crop: str, width: int, height: int) -> None:
    left, top, right, bottom = boxes(CropSpec(32, crop, scale_range=(40, 70)), width, height).T
    assert left.min() >= 0 and top.min() >= 0
    assert right.max() <= width + 1e-9 and bottom.max() <= height + 1e-9
    assert (right > left).all() and (bottom > top).all()


def test_a_jittered_scale_is_the_shorter_side_over_the_windows_share_and_spans_the_range() -> None:
    left, top, right, bottom = boxes(CropSpec(224, "scale_jitter"), 500, 375).T
    sides = 224 * 375 / (bottom - top)
    assert 256 <= sides.min() < 262 and 474 < sides.max() <= 480.001
    np.testing.assert_allclose((right - left) / (bottom - top), 1, rtol=0.004)
    assert left.min() == 0 and np.isclose(right.max(), 500)  # the image's edges are seen, too


def test_a_random_part_has_the_requested_area_and_shape() -> None:
    left, top, right, bottom = boxes(CropSpec(176, "random_resized"), 500, 375).T
    area, ratio = (right - left) * (bottom - top) / (500 * 375), (right - left) / (bottom - top)
    assert 0.07 < area.min() < 0.12 and 0.7 < area.max() <= 1
    assert 0.74 < ratio.min() < 0.78 and 1.28 < ratio.max() < 1.35
    assert abs(np.log(ratio).mean()) < 0.05


def test_where_no_part_fits_the_largest_allowed_centre_is_taken() -> None:
    crop = CropSpec(32, "random_resized", area=(1.0, 1.0))
    assert crop.box(300, 30, random_of(0, 0, 0)) == (130, 0, 170, 30)
    assert crop.box(30, 300, random_of(0, 0, 0)) == (0, 130, 30, 170)


def test_chance_follows_only_from_seed_step_and_position() -> None:
    crop = CropSpec(32, "random_resized")
    same = [crop.box(500, 375, random_of(1, 2, 3)) for _ in range(2)]
    assert same[0] == same[1]
    others = {crop.box(500, 375, random_of(*draw)) for draw in ((1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4))}
    assert len(others) == 4


def test_large_images_are_decoded_as_large_as_the_smallest_window_needs() -> None:
    assert CropSpec(224, "scale_jitter").decoded_side() == 480
    side = CropSpec(224, "random_resized").decoded_side()
    assert math.sqrt(0.08 * 3 / 4) * side >= 224
