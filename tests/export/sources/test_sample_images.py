"""The sample images are what they are for: small, of all formats and sizes, and all different."""

from pathlib import Path

import numpy as np
import pytest

import export
from export.sources.network_spec import NetworkSpec
from export.sources.sample_images import sample_pixels, samples_by_every_resizer, to_pixels
from export.sources.trained import default_preprocessing
from service.images.preprocessing import decode, installed_resizers

FILES = sorted((Path(export.__file__).parent / "samples").iterdir())


def test_the_sample_images_are_small_and_of_every_format_and_size() -> None:
    infos = [decode(file.read_bytes())[1] for file in FILES]
    assert {info.format for info in infos} == {"JPEG", "PNG", "WEBP"}
    assert min(min(info.width, info.height) for info in infos) == 32
    assert max(max(info.width, info.height) for info in infos) == 340
    assert sum(file.stat().st_size for file in FILES) < 150_000


def test_a_truncated_jpeg_is_prepared_as_the_service_prepares_it() -> None:
    preprocessing = default_preprocessing(NetworkSpec(20).architecture())
    jpeg = next(file.read_bytes() for file in FILES if file.suffix == ".jpg")
    whole, truncated = to_pixels([jpeg, jpeg[:-2]], preprocessing)
    assert np.array_equal(whole, truncated)


def test_no_two_sample_images_look_alike() -> None:
    pixels = sample_pixels(default_preprocessing(NetworkSpec(20).architecture())).astype(float)
    assert len(pixels) == len(FILES) == 17
    for index, image in enumerate(pixels):
        others = np.delete(pixels, index, axis=0)
        assert np.abs(others - image).mean(axis=(1, 2, 3)).min() > 10


def test_samples_by_every_resizer_hold_each_ones_pixels() -> None:
    preprocessing = default_preprocessing(NetworkSpec(20).architecture())
    every = {image.tobytes() for image in samples_by_every_resizer(preprocessing)}
    for resizer in installed_resizers():
        assert {image.tobytes() for image in sample_pixels(preprocessing, resizer)} <= every
    if len(installed_resizers()) > 1:
        assert len(every) > 17


def test_with_one_resizer_the_samples_come_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.images.simd_resizing.rust", None)
    preprocessing = default_preprocessing(NetworkSpec(20).architecture())
    assert np.array_equal(samples_by_every_resizer(preprocessing), sample_pixels(preprocessing))
