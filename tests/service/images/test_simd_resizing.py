"""Reduction by cykooz-resizer: within 1 of 255 of Pillow's values, and Pillow where it has to be."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.images import simd_resizing as simd_resize
from service.images.preprocessing import (
    decode_reduced,
    image_to_pixels,
    installed_resizers,
    resize_and_crop,
    usual_resizer,
)
from service.images.resizing import PILLOW, SIMD, resize_box
from service.images.simd_resizing import can_reduce, reduce_part
from tests.support.image_files.images import encoded, exif, scene, segment, with_segments

pytestmark = pytest.mark.skipif(simd_resize.rust is None, reason="cykooz-resizer is not installed")

CHANCE = np.random.default_rng(11)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(CHANCE.integers(0, 256, (height, width, 3), np.uint8))


def black_and_white(width: int, height: int) -> Image.Image:
    return Image.fromarray(CHANCE.integers(0, 2, (height, width, 3), np.uint8) * 255)


def flat(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (255, 1, 128))


def assert_close(pixels: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    assert pixels.shape == expected.shape and pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous and pixels.flags.writeable
    differences = np.abs(pixels.astype(int) - expected)
    assert differences.max() <= 1
    assert differences.mean() <= 0.2


@pytest.mark.parametrize("make", [scene, noise, black_and_white, flat])
def test_any_size_and_crop_gives_the_pixels_of_pillow_within_one_level(make: type) -> None:
    dice = np.random.default_rng(3)
    sizes = [(1, 1), (2, 1), (1, 300), (300, 1), (17, 270), (1600, 100), (256, 256), (257, 256), (256, 300)]
    sizes += [tuple(dice.integers(1, 500, 2).tolist()) for _ in range(60)]
    for width, height in sizes:
        image = make(width, height)
        for side in (1, 32, 224, int(dice.integers(1, 300))):
            crop = (int(dice.integers(1, side + 1)), int(dice.integers(1, side + 1)))
            expected = resize_and_crop(image, side, crop, resizer=PILLOW)
            assert_close(resize_and_crop(image, side, crop, resizer=SIMD), expected)
            assert np.array_equal(
                resize_and_crop(np.asarray(image), side, crop, resizer=SIMD),
                resize_and_crop(image, side, crop, resizer=SIMD),
            )


def test_a_photos_reduction_differs_in_few_values() -> None:
    differences = []
    for size in ((500, 375), (375, 500), (500, 500), (640, 427), (1024, 300)):
        image = scene(*size)
        expected = resize_and_crop(image, 256, (224, 224), resizer=PILLOW)
        differences.append(np.abs(resize_and_crop(image, 256, (224, 224), resizer=SIMD).astype(int) - expected))
    assert 0 < np.mean([part.mean() for part in differences]) < 0.02


@pytest.mark.parametrize("size", [(300, 300), (180, 260), (260, 180), (64, 300), (300, 64), (301, 40)])
def test_any_box_gives_the_pixels_of_pillow_within_one_level(size: tuple[int, int]) -> None:
    dice = np.random.default_rng(4)
    for image in (scene(*size), noise(*size)):
        for _ in range(20):
            left, right = sorted(dice.uniform(0, size[0], 2))
            top, bottom = sorted(dice.uniform(0, size[1], 2))
            box = (left, top, min(right + 1, size[0]), min(bottom + 1, size[1]))
            new = (int(dice.integers(1, 100)), int(dice.integers(1, 100)))
            expected = np.asarray(image.resize(new, Image.Resampling.BILINEAR, box=box))
            assert_close(resize_box(image, box, new, SIMD), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("container", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGBA"), ("WEBP", "RGB")])
def test_every_orientation_and_mode_gives_the_pixels_of_pillow(orientation: int, container: str, mode: str) -> None:
    data = encoded(scene(301, 222).convert(mode), container)
    if container == "JPEG":
        data = with_segments(data, segment(0xE1, b"Exif\x00\x00" + exif(orientation)))
    by_simd, info = image_to_pixels(data, shorter_side=80, crop=(64, 70), resizer=SIMD)
    by_pillow, same = image_to_pixels(data, shorter_side=80, crop=(64, 70), resizer=PILLOW)
    assert info == same
    assert_close(by_simd, by_pillow)


def test_a_window_of_training_is_resized_within_one_level() -> None:
    image = decode_reduced(encoded(scene(640, 480), "JPEG"), 64)
    for box in ((0.0, 0.0, 640.0, 480.0), (10.5, 20.25, 400.0, 300.5), (500.0, 400.0, 640.0, 480.0)):
        assert_close(image.resized((64, 64), box, SIMD), image.resized((64, 64), box, PILLOW))


def test_what_could_differ_by_more_is_left_to_pillow() -> None:
    whole = (0.0, 0.0, 300.0, 200.0)
    assert can_reduce((300, 200), whole, (150, 100), (0, 0, 150, 100))
    assert not can_reduce((300, 200), whole, (301, 100), (0, 0, 301, 100))  # wider
    assert not can_reduce((300, 200), whole, (150, 100), (-1, 0, 149, 100))  # the rest is black
    assert not can_reduce((300, 200), whole, (150, 100), (0, 0, 150, 101))
    assert not can_reduce((3000, 2000), (0.0, 0.0, 3000.0, 2000.0), (150, 100), (0, 0, 150, 100))  # large
    image = noise(300, 200)
    for interpolation in ("nearest", "bicubic", "lanczos"):
        by_simd = resize_and_crop(image, 99, (64, 64), interpolation, resizer=SIMD)
        assert np.array_equal(by_simd, resize_and_crop(image, 99, (64, 64), interpolation, resizer=PILLOW))


def test_without_the_package_pillow_does_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed_resizers() == (SIMD, PILLOW) and usual_resizer() == SIMD
    data = encoded(scene(500, 375), "JPEG")
    expected = image_to_pixels(data, shorter_side=99, crop=(64, 64), resizer=PILLOW)[0]
    monkeypatch.setattr(simd_resize, "rust", None)
    assert installed_resizers() == (PILLOW,) and usual_resizer() == PILLOW
    assert np.array_equal(image_to_pixels(data, shorter_side=99, crop=(64, 64))[0], expected)
    with pytest.raises(ValueError, match="cykooz-resizer is not installed"):
        reduce_part(scene(500, 375), (0.0, 0.0, 500.0, 375.0), (100, 75), (0, 0, 100, 75))


def test_the_service_starts_where_the_package_cannot_be_imported() -> None:
    program = (
        "import sys; sys.modules['cykooz_resizer'] = None\n"
        "import service.app\nfrom service.images.preprocessing import usual_resizer; print(usual_resizer())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == PILLOW


def test_all_instruction_sets_give_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    image, library = noise(320, 240), simd_resize.rust
    assert library is not None
    expected = resize_and_crop(image, 99, (64, 64), resizer=SIMD)
    resizer = library.RustResizer

    def without_simd() -> object:
        plain = resizer()
        plain.set_cpu_extensions(1)
        return plain

    monkeypatch.setattr(library, "RustResizer", without_simd)
    assert np.array_equal(resize_and_crop(image, 99, (64, 64), resizer=SIMD), expected)


def test_a_resize_is_computed_by_the_thread_that_asks_for_it() -> None:
    program = (
        "import os; from service.images.resizing import SIMD, resize_and_crop; from PIL import Image\n"
        "image, tasks = Image.new('RGB', (1500, 1500)), lambda: len(os.listdir('/proc/self/task'))\n"
        "before = tasks(); resize_and_crop(image, 256, (224, 224), resizer=SIMD); print(tasks() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 1  # the library's own, which has nothing to do


def test_four_threads_resize_as_one_does() -> None:
    images = [noise(300 + step, 200 + 3 * step) for step in range(24)]
    alone = [resize_and_crop(image, 99, (64, 64), resizer=SIMD) for image in images]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda image: resize_and_crop(image, 99, (64, 64), resizer=SIMD), images))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))
