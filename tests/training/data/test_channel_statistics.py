import numpy as np
import pytest

from training.data.channel_statistics import measure, sample
from training.data.image_arrays import Chosen


def test_mean_and_deviation_are_those_of_all_pixels_whatever_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 6, 3), dtype=np.uint8)
    monkeypatch.setattr("training.data.channel_statistics._PIXELS_AT_A_TIME", 500)
    found = measure(Chosen(images, np.arange(5, 50)))
    pixels = images[5:].reshape(-1, 3) / 255
    assert found.images == 45
    np.testing.assert_allclose(found.mean, pixels.mean(0), atol=1e-6)
    np.testing.assert_allclose(found.standard_deviation, pixels.std(0), atol=1e-6)
    np.testing.assert_allclose(found.mean_image, images[5:].mean(0), atol=1e-3)


def test_images_of_one_colour_do_not_divide_by_zero() -> None:
    found = measure(np.full((4, 8, 8, 3), 7, np.uint8))
    assert found.standard_deviation == [1e-3] * 3


def test_all_images_are_measured_unless_there_are_very_many_pixels() -> None:
    indices = np.arange(0, 100_000, 2)
    assert sample(indices, 32, seed=0) is indices
    few = sample(indices, 224, seed=0)
    assert 4_000 < len(few) < 6_000 and len(np.unique(few)) == len(few) and (few % 2 == 0).all()
    np.testing.assert_array_equal(few, sample(indices, 224, seed=0))
    assert not np.array_equal(few, sample(indices, 224, seed=1))
