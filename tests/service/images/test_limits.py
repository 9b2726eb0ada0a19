"""The limits as settings, and JPEGs above them: taken at a reduced scale with the same memory and CPU, or told why."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.app import create_app
from service.errors import BadImage, Overloaded
from service.images import rgb_decoding
from service.images.limits import DEFAULT_LIMITS, ImageLimits
from service.images.preprocessing import ImageInfo, decode, decode_reduced, image_to_pixels
from service.settings import Settings
from tests.service.api.endpoints.test_classify import assert_problem
from tests.service.conftest import client_of
from tests.service.images.test_preprocessing import large_photo, resized_like_torchvision
from tests.support.image_files.hostile_images import jpeg_of_scans, scan
from tests.support.image_files.images import encoded, exif, png_file, segment, with_segments

# 5 megapixels, above limits of 4.5 that stand for 26 and 48.
PHOTO = large_photo(2600, 2000)
LIMITS = ImageLimits(max_pixels=4_500_000, max_side=2_600)


def flat(width: int, height: int, **how: object) -> bytes:
    return encoded(Image.new("RGB", (width, height), (10, 150, 90)), "JPEG", **how)


def progressive_of(width: int, height: int, scans: int, sampling: int = 0x22) -> bytes:
    """The header of a progressive JPEG of three components whose colours are sampled once for each 2 x 2 pixels."""
    parts = b"\x01" + bytes((sampling,)) + b"\x00\x02\x11\x00\x03\x11\x00"
    frame = segment(0xC2, struct.pack(">BHHB", 8, height, width, 3) + parts)
    start = jpeg_of_scans([], components=3)
    return start[: start.index(b"\xff\xc2")] + frame + scan([1, 2, 3]) + scan([1], 1, 63) * (scans - 1) + b"\xff\xd9"


@pytest.mark.parametrize("side", [32, 224])
def test_a_jpeg_above_the_limits_is_decoded_small_and_hardly_differs(side: int) -> None:
    pixels, info = image_to_pixels(PHOTO, shorter_side=side, crop=(side, side), limits=LIMITS)
    assert info == ImageInfo("JPEG", 2600, 2000)
    whole = Image.open(io.BytesIO(PHOTO)).convert("RGB")
    difference = np.abs(pixels.astype(int) - resized_like_torchvision(whole, side, (side, side), "bilinear"))
    assert difference.mean() < 0.55 and difference.max() <= 16


@pytest.mark.parametrize("orientation", [3, 6])
def test_a_strip_above_the_limits_keeps_its_place(orientation: int) -> None:
    strip = Image.open(io.BytesIO(PHOTO)).convert("RGB").resize((40_001, 1203))
    data = with_segments(encoded(strip, "JPEG", quality=95), segment(0xE1, b"Exif\x00\x00" + exif(orientation)))
    limits = ImageLimits(max_side=12_000)
    pixels, info = image_to_pixels(data, shorter_side=32, crop=(32, 32), limits=limits)
    turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}[orientation]
    whole = strip.transpose(turn)
    assert (info.width, info.height) == whole.size
    left, top = (whole.width - 1203) / 2, (whole.height - 1203) / 2
    expected = whole.resize((32, 32), Image.Resampling.BILINEAR, box=(left, top, left + 1203, top + 1203))
    assert np.abs(pixels.astype(int) - np.asarray(expected)).mean() < 1.5


def test_every_way_of_decoding_takes_a_large_jpeg() -> None:
    data = flat(8000, 6000)
    image, info = decode(data)
    assert info == ImageInfo("JPEG", 8000, 6000) and image.size == (4000, 3000)
    assert np.abs(np.asarray(image).astype(int) - (10, 150, 90)).max() <= 2
    assert decode_reduced(data, 224).info == info
    assert image_to_pixels(data, shorter_side=224, crop=(224, 224))[1] == info
    grey = encoded(Image.new("L", (8000, 6000), 77), "JPEG")
    cmyk = encoded(Image.new("CMYK", (8000, 6000), (77, 0, 0, 0)), "JPEG")
    for other in (grey, cmyk, data[:-2]):
        assert image_to_pixels(other, shorter_side=32, crop=(32, 32))[0].std(axis=(0, 1)).max() < 1


def test_no_more_pixels_are_decoded_than_the_limit() -> None:
    for width, height in ((8000, 6000), (12_000, 9000), (16_320, 12_240)):
        image, info = decode(flat(width, height))
        assert (info.width, info.height) == (width, height)
        assert image.width * image.height <= DEFAULT_LIMITS.max_pixels
        assert max(image.size) <= DEFAULT_LIMITS.max_side


def test_a_progressive_jpeg_above_the_limits_is_taken_while_its_coefficients_fit() -> None:
    assert decode(progressive_of(8000, 6000, 5))[1] == ImageInfo("JPEG", 8000, 6000)
    with pytest.raises(BadImage, match=r"108,000,000 pixels in 5 scans and needs 324,000,000 bytes .* 208,000,000"):
        decode(progressive_of(12_000, 9000, 5))
    with pytest.raises(BadImage, match=r"288,000,000 bytes"):
        decode(progressive_of(8000, 6000, 5, sampling=0x11))
    with pytest.raises(BadImage, match=r"9 scans of 48,000,000 pixels.* 405,000,000\. Save it again as baseline JPEG"):
        decode(progressive_of(8000, 6000, 9))


@pytest.mark.parametrize(
    ("data", "limit"),
    [
        (png_file(5200, 5001, 8, 0), "26,005,200 pixels; at most 26,000,000"),
        (png_file(12_001, 1, 8, 0), "12001 x 1 pixels; a side may have at most 12,000"),
        (jpeg_of_scans([scan()], width=20_000, height=20_000, frame=0xC0), "400,000,000 pixels; at most 208,000,000"),
        (
            jpeg_of_scans([scan()], width=65_535, height=1, frame=0xC0),
            "65535 x 1 pixels; a side may have at most 12,000",
        ),
    ],
)
def test_an_image_above_the_limits_is_refused_with_both_numbers(data: bytes, limit: str) -> None:
    for limits, advice in (
        (DEFAULT_LIMITS, "; make it smaller."),
        (ImageLimits.of(26_000_000, 12_000), " sets the limit)."),
    ):
        with pytest.raises(BadImage) as refused:
            image_to_pixels(data, shorter_side=224, crop=(224, 224), limits=limits)
        assert limit in refused.value.message and refused.value.message.endswith(advice)


def test_a_target_too_large_for_a_reduced_image_is_no_way_around_the_limits() -> None:
    with pytest.raises(BadImage, match="5,200,000 pixels; at most 4,500,000"):
        image_to_pixels(PHOTO, shorter_side=900, crop=(900, 900), limits=LIMITS)
    with pytest.raises(BadImage, match="5,200,000 pixels"):
        image_to_pixels(PHOTO, shorter_side=224, crop=(224, 224), interpolation="nearest", limits=LIMITS)


def test_the_other_limits_grow_with_the_pixels_and_do_not_shrink() -> None:
    assert ImageLimits.of(26_000_000, 12_000) == ImageLimits(are_settings=True)
    twice = ImageLimits.of(52_000_000, 20_000)
    assert (twice.max_pixels, twice.max_side, twice.max_bytes) == (52_000_000, 20_000, 208_000_000)
    assert (twice.max_scan_pixels, twice.max_webp_work, twice.max_png_cpu_s) == (540_000_000, 240_000_000, 1.0)
    small = ImageLimits.of(1_000, 12_000)
    assert (small.max_bytes, small.max_png_cpu_s) == (DEFAULT_LIMITS.max_bytes, DEFAULT_LIMITS.max_png_cpu_s)


@pytest.mark.anyio
async def test_the_settings_reach_every_route(models: Path) -> None:
    wide, large = encoded(Image.new("RGB", (101, 10)), "PNG"), encoded(Image.new("RGB", (80, 80)), "JPEG")
    app = create_app(Settings(models=models, max_pixels=5_000, max_side=100, engine_threads=1))
    async with client_of(app) as client:
        for path in ("/classify", "/explain", "/embed"):
            for content, words in (
                (wide, "--max-side"),
                (large, "6,400 pixels; at most 5,000 are accepted (--max-pixels"),
            ):
                answer = await client.post(path, content=content)
                assert_problem(answer, 422, "bad_image")
                assert words in answer.json()["detail"]
        assert (await client.post("/classify", content=encoded(Image.new("RGB", (70, 70)), "PNG"))).status_code == 200
    app = create_app(Settings(models=models, max_pixels=30_000_000, max_side=20_000, engine_threads=1))
    async with client_of(app) as client:
        assert (await client.post("/classify", content=encoded(Image.new("1", (5500, 5000)), "PNG"))).status_code == 200
        assert (await client.post("/classify", content=encoded(Image.new("1", (19_000, 2)), "PNG"))).status_code == 200


def test_an_image_for_which_the_server_has_no_memory_is_not_called_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(rgb_decoding, "_to_rgb", without_memory)
    with pytest.raises(Overloaded, match="no memory"):
        decode(flat(64, 64))
