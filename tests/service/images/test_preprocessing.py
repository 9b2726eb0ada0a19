"""Decoding, turning, resizing and cropping: the pixels of the field's reference.

Exactly those with Pillow as the resizer, and within 1 of 255 with cykooz-resizer.
"""

import io
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from service.errors import BadImage, NotAnImage, ServiceError
from service.images.jpeg_segments import SOS, jpeg_segments
from service.images.preprocessing import (
    DEFAULT_LIMITS,
    INTERPOLATIONS,
    PILLOW,
    ImageInfo,
    ImageLimits,
    Resizer,
    decode,
    decode_to_show,
    image_to_pixels,
    installed_resizers,
    resize_and_crop,
)
from tests.support.image_files.decode_child import mutated
from tests.support.image_files.images import (
    FIXTURES,
    chunk,
    encoded,
    exif,
    images,
    png,
    png_file,
    scene,
    segment,
    with_segments,
)

PHOTOS = Path(__file__).parents[4] / "shared" / "data" / "photos"
RESAMPLING = dict(zip(("nearest", "lanczos", "bilinear", "bicubic"), (0, 1, 2, 3), strict=True))


def decoded_by_pillow(data: bytes) -> Image.Image:
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def resized_like_torchvision(
    image: Image.Image, shorter_side: int, crop: tuple[int, int], interpolation: str
) -> NDArray[np.uint8]:
    """torchvision.transforms.functional.resize with one size, then center_crop, in its own words."""
    width, height = image.size
    short, long = (width, height) if width <= height else (height, width)
    new_short, new_long = shorter_side, int(shorter_side * long / short)
    size = (new_short, new_long) if width <= height else (new_long, new_short)
    image = image.resize(size, Image.Resampling(RESAMPLING[interpolation]))
    top, left = round((size[1] - crop[0]) / 2.0), round((size[0] - crop[1]) / 2.0)
    return np.asarray(image.crop((left, top, left + crop[1], top + crop[0])))


def assert_like_plain_pillow(
    data: bytes, shorter_side: int, crop: tuple[int, int], interpolation: str = "bilinear"
) -> None:
    reference = decoded_by_pillow(data)
    expected = resized_like_torchvision(reference, shorter_side, crop, interpolation)
    for resizer in installed_resizers():
        pixels, info = image_to_pixels(
            data, shorter_side=shorter_side, crop=crop, interpolation=interpolation, resizer=resizer
        )
        assert (info.width, info.height) == reference.size
        assert_as_close_as_promised(pixels, expected, resizer)


def assert_as_close_as_promised(pixels: NDArray[np.uint8], expected: NDArray[np.uint8], resizer: Resizer) -> None:
    """Pillow: the same values. cykooz-resizer: none further away than 1 of 255, and few of them."""
    differences = np.abs(pixels.astype(int) - expected)
    assert differences.max() <= (0 if resizer == PILLOW else 1)
    assert differences.mean() <= 0.2


@pytest.mark.shared
@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the shared data folder")
@pytest.mark.parametrize(
    ("shorter_side", "crop", "interpolation"),
    [(256, (224, 224), "bilinear"), (32, (32, 32), "bicubic"), (235, (197, 224), "lanczos")],
)
def test_real_photos_give_the_pixels_of_plain_pillow(
    shorter_side: int, crop: tuple[int, int], interpolation: str
) -> None:
    photos = sorted(PHOTOS.glob("*.jpg"))
    assert len(photos) >= 40
    for photo in photos:
        assert_like_plain_pillow(photo.read_bytes(), shorter_side, crop, interpolation)


@pytest.mark.parametrize("name", [name for name, image in images().items() if image.rgb is None])
def test_every_mode_of_jpeg_and_webp_gives_the_pixels_of_plain_pillow(name: str) -> None:
    data = images()[name].data
    assert np.array_equal(np.asarray(decode(data)[0]), np.asarray(decoded_by_pillow(data)))
    assert_like_plain_pillow(data, 32, (32, 32))
    assert_like_plain_pillow(data, 64, (56, 60), "bicubic")


@pytest.mark.parametrize("name", [name for name, image in images().items() if image.rgb is None])
def test_an_image_of_the_networks_size_gives_exactly_the_pixels_of_plain_pillow(name: str) -> None:
    data = images()[name].data
    width, height = decoded_by_pillow(data).size
    side = min(width, height)
    assert_like_plain_pillow(data, side, (height, width))
    assert_like_plain_pillow(data, side, (side, side))
    assert_like_plain_pillow(data, side, (max(1, side - 4), max(1, side - 13)))
    assert_like_plain_pillow(data, side, (height + 2, width + 5))  # the rest is black


@pytest.mark.parametrize("name", ["jpeg_grey", "jpeg_420", "jpeg_stored_as_rgb", "jpeg_mpo"])
def test_an_ordinary_jpeg_of_the_networks_size_needs_no_image_in_between(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.images.rgb_decoding.decode_plain_jpeg", None)
    assert_like_plain_pillow(images()[name].data, 35, (35, 45))


@pytest.mark.parametrize("side", [35, 20])  # as they are, and reduced
def test_damage_has_the_same_outcome_whichever_decoder_meets_it_first(
    side: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = [image.data for name, image in images().items() if name.startswith("jpeg") and "one" not in name]
    files = [mutated(seeds, case) for case in range(1500)]
    quick = [outcome(file, side) for file in files]
    monkeypatch.setattr("service.images.preprocessing.decode_to_array", lambda *_: None)
    plain = [outcome(file, side) for file in files]
    assert quick == plain
    assert {type(result) for result in plain} == {str, bytes}


def outcome(data: bytes, side: int) -> bytes | str:
    """The pixels, or why there are none."""
    try:
        pixels, info = image_to_pixels(data, shorter_side=side, crop=(side, 9 * side // 7))
    except ServiceError as error:
        return error.message
    return pixels.tobytes() + repr(info).encode()


@pytest.mark.parametrize("name", [name for name, image in images().items() if image.rgb is not None])
def test_every_mode_of_png_gives_the_pixels_that_its_standard_asks_for(name: str) -> None:
    image = images()[name]
    turn = {"png_exif_before": Image.Transpose.ROTATE_270, "png_exif_after": Image.Transpose.ROTATE_90}.get(name)
    expected = Image.fromarray(image.rgb)
    expected = expected if turn is None else expected.transpose(turn)
    image, info = decode(image.data)
    assert info == ImageInfo("PNG", *expected.size)
    assert np.array_equal(np.asarray(image), np.asarray(expected))


def test_a_transparent_16_bit_colour_leaves_its_nearest_neighbour_visible() -> None:
    samples = np.array([[[0x1234, 0x5678, 0x9ABC], [0x1234, 0x5678, 0x9ABD]]], np.uint16)
    data = png(samples, 16, 2, chunk(b"tRNS", samples[0, 0].astype(">u2").tobytes()))
    assert np.asarray(decode(data)[0]).tolist() == [[[255, 255, 255], [0x12, 0x56, 0x9A]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_each_orientation_shows_the_same_upright_image(orientation: int) -> None:
    upright = np.asarray(scene(), np.uint16)
    right_side_first = np.rot90(upright)
    stored = (
        upright,
        upright[:, ::-1],
        upright[::-1, ::-1],
        upright[::-1],
        upright.transpose(1, 0, 2),
        right_side_first,
        right_side_first[:, ::-1],
        right_side_first[::-1, ::-1],
    )
    data = png(stored[orientation - 1], 8, 2, chunk(b"eXIf", exif(orientation)))
    image, info = decode(data)
    assert (info.height, info.width) == upright.shape[:2]
    assert np.array_equal(np.asarray(image), upright)


def large_photo(width: int, height: int, orientation: int = 1) -> bytes:
    """A JPEG with detail at every scale, like a photo's."""
    dice = np.random.default_rng(1)
    image = Image.fromarray(dice.integers(0, 256, (height // 50, width // 50, 3), np.uint8)).resize((width, height))
    values = np.asarray(image) // 2 + dice.integers(0, 60, (height, width, 1), np.uint8)
    data = encoded(Image.fromarray(values), "JPEG", quality=88)
    return with_segments(data, segment(0xE1, b"Exif\x00\x00" + exif(orientation)))


def differences_to_plain_pillow(data: bytes, shorter_side: int, resizer: Resizer = PILLOW) -> NDArray[np.int_]:
    pixels, info = image_to_pixels(data, shorter_side=shorter_side, crop=(shorter_side, shorter_side), resizer=resizer)
    reference = decoded_by_pillow(data)
    assert (info.width, info.height) == reference.size
    expected = resized_like_torchvision(reference, shorter_side, (shorter_side, shorter_side), "bilinear")
    return np.abs(pixels.astype(int) - expected)


@pytest.mark.parametrize(
    ("size", "orientation"),
    [((2403, 1905), orientation) for orientation in range(1, 9)] + [((4033, 3023), 6), ((6001, 4003), 1)],
)
def test_a_large_jpeg_is_decoded_small_and_hardly_differs(size: tuple[int, int], orientation: int) -> None:
    photo = large_photo(*size, orientation)
    for resizer in installed_resizers():
        differences = differences_to_plain_pillow(photo, 224, resizer)
        assert 0 < differences.mean() <= 0.5
        assert differences.max() <= 16


@pytest.mark.parametrize("size", [(2403, 1905), (4033, 3023)])
def test_a_reduced_jpeg_gives_the_same_pixels_whichever_decoder_reduces_it(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = large_photo(*size)
    by_array = image_to_pixels(photo, shorter_side=256, crop=(224, 224))[0]
    monkeypatch.setattr("service.images.preprocessing.decode_to_array", lambda *_: None)
    assert np.array_equal(image_to_pixels(photo, shorter_side=256, crop=(224, 224))[0], by_array)


@pytest.mark.parametrize(("size", "side"), [((2000, 1990), 224), ((2403, 1905), 127), ((2403, 1905), 480)])
def test_smaller_images_and_tiny_or_large_targets_stay_exact(size: tuple[int, int], side: int) -> None:
    assert differences_to_plain_pillow(large_photo(*size), side).max() == 0


@pytest.mark.parametrize(
    ("size", "decoded"),
    [
        ((1100, 700), (550, 350)),
        ((1023, 700), (1023, 700)),
        ((2603, 1999), (651, 500)),
        ((4099, 300), (513, 38)),
        ((5000, 3), (2500, 2)),  # an eighth of three pixels is none
        ((5000, 1), (5000, 1)),
    ],
)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_a_jpeg_to_be_shown_is_decoded_at_the_smallest_scale_that_is_large_enough(
    size: tuple[int, int], decoded: tuple[int, int], orientation: int
) -> None:
    data = large_photo(*size, orientation)
    shown, whole = decode_to_show(data, 512), decode_to_show(data, 100_000)
    assert shown.image.size == (decoded if orientation != 6 else decoded[::-1])
    assert whole.image.size == (shown.info.width, shown.info.height)
    box = (0.0, 0.0, float(shown.info.width), float(shown.info.height))
    side = max(1, min(size) * 512 // max(size))
    pixels, exact = (each.resized((side, 512), box).astype(int) for each in (shown, whole))
    assert np.abs(pixels - exact).mean() < 3


def test_an_image_to_be_shown_keeps_the_limits_and_other_formats_their_size() -> None:
    image = Image.new("RGB", (3000, 2000))
    assert decode_to_show(encoded(image, "PNG"), 512).image.size == image.size
    assert decode_to_show(encoded(image, "JPEG"), 512).image.size == (750, 500)
    limits = ImageLimits.of(1_000_000, 12_000)
    assert decode_to_show(encoded(image, "JPEG"), 2900, limits).image.size == (750, 500)
    with pytest.raises(BadImage, match="6,000,000 pixels"):
        decode_to_show(encoded(image, "PNG"), 512, limits)


def test_only_jpeg_is_decoded_small() -> None:
    photo = Image.open(io.BytesIO(large_photo(2400, 1900)))
    assert differences_to_plain_pillow(encoded(photo, "PNG", compress_level=1), 224).max() == 0


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    "size", [(500, 375), (375, 500), (333, 333), (224, 224), (225, 224), (1, 1), (7, 100), (640, 40)]
)
def test_resize_and_crop_round_as_torchvision_does(size: tuple[int, int], interpolation: str) -> None:
    image = scene(*size)
    for shorter_side, crop in ((256, (224, 224)), (224, (224, 224)), (57, (31, 44))):
        expected = resized_like_torchvision(image, shorter_side, crop, interpolation)
        for resizer in installed_resizers():
            pixels = resize_and_crop(image, shorter_side, crop, interpolation, resizer=resizer)
            assert_as_close_as_promised(pixels, expected, resizer)


@pytest.mark.parametrize("size", [(1700, 100), (100, 1700), (2000, 61)])
def test_a_strip_gives_the_pixels_of_a_whole_resize_within_one_level(size: tuple[int, int]) -> None:
    image = scene(*size)
    expected = resized_like_torchvision(image, 64, (56, 60), "bilinear")
    for resizer in installed_resizers():
        assert np.abs(resize_and_crop(image, 64, (56, 60), resizer=resizer).astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [(12_000, 1), (1, 12_000), (12_000, 7), (3, 11_999)])
def test_a_strip_of_the_longest_side_costs_no_more_than_its_pixels(size: tuple[int, int]) -> None:
    width, height = size
    data = png(np.full((height, width, 1), 77, np.uint16), 8, 0)
    for side in (32, 224, 299):
        pixels, info = image_to_pixels(data, shorter_side=side, crop=(side, side))
        assert (info.width, info.height) == size
        assert pixels.shape == (side, side, 3)
        assert (pixels == 77).all()


def test_every_shape_gives_pixels_of_the_size_of_the_crop() -> None:
    for width, height in zip((1, 2, 3, 17, 500, 33, 1000), (1, 41, 3, 1, 30, 529, 3), strict=True):
        for crop in ((32, 32), (31, 32), (1, 5)):
            pixels = resize_and_crop(scene(width, height), 32, crop)
            assert pixels.shape == (*crop, 3)
            assert pixels.dtype == np.uint8
            assert pixels.flags.c_contiguous and pixels.flags.writeable


@pytest.mark.parametrize(
    ("width", "height", "depth", "colour"),
    [(5200, 5001, 8, 0), (12_001, 1, 8, 0), (1, 12_001, 8, 0), (0, 5, 8, 0), (5, 0, 8, 0), (5200, 5000, 16, 2)],
)
def test_an_image_over_a_limit_is_refused_by_its_header(width: int, height: int, depth: int, colour: int) -> None:
    with pytest.raises(BadImage):
        decode(png_file(width, height, depth, colour))


def test_an_image_at_the_limits_is_decoded() -> None:
    limits = ImageLimits(
        max_pixels=45 * 35, max_side=45, max_scans=10, max_scan_pixels=45 * 35 * 10, max_bytes=45 * 35 * 3
    )
    assert decode(encoded(scene(), "JPEG", progressive=True), limits)[0].size == (45, 35)
    for less in ("max_pixels", "max_side", "max_scans", "max_scan_pixels", "max_bytes"):
        values = {name: getattr(limits, name) - (name == less) for name in limits.__dataclass_fields__}
        with pytest.raises(BadImage):
            decode(encoded(scene(), "JPEG", progressive=True), ImageLimits(**values))


def test_a_webp_image_may_have_many_pixels_or_many_bytes_but_not_both() -> None:
    work = 4 * 45 * 35 + 2 * len(images()["webp_lossy"].data)
    assert decode(images()["webp_lossy"].data, ImageLimits(max_webp_work=work))[0].size == (45, 35)
    with pytest.raises(BadImage, match="too many pixels and bytes"):
        decode(images()["webp_lossy"].data, ImageLimits(max_webp_work=work - 1))


def test_the_limits_are_those_that_are_promised() -> None:
    assert (DEFAULT_LIMITS.max_pixels, DEFAULT_LIMITS.max_side) == (26_000_000, 12_000)
    assert (DEFAULT_LIMITS.max_scans, DEFAULT_LIMITS.max_scan_pixels) == (100, 270_000_000)


def test_a_png_that_unpacks_too_slowly_is_given_up() -> None:
    with pytest.raises(BadImage, match="takes too long to decompress"):
        decode(images()["png_rgb_8"].data, ImageLimits(max_png_cpu_s=-1))


@pytest.mark.parametrize(
    "name", ["jpeg_420", "jpeg_progressive", "png_rgb_8", "png_palette_4", "webp_lossy", "webp_alpha"]
)
def test_a_file_cut_off_anywhere_is_refused(name: str) -> None:
    data = images()[name].data
    if name == "jpeg_progressive":  # its first scan, of all components, is enough
        data = data[: [start for kind, start, _ in jpeg_segments(data, 2) if kind == SOS][1] - 50]
    ends = 2 if name.startswith("jpeg") else 20  # the last bytes hold no pixels
    for part in range(64):
        with pytest.raises(ServiceError) as refused:
            decode(data[: part * (len(data) - ends) // 64])
        assert refused.value.status in (415, 422)


def test_metadata_is_not_read_beyond_the_orientation(caplog: pytest.LogCaptureFixture) -> None:
    broken = b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff" + b"\x1a\x01\x05\x00\xff\xff\xff\xff" * 8000
    data = with_segments(images()["jpeg_420"].data, segment(0xE1, broken), segment(0xE2, b"MPF\x00garbage"))
    with caplog.at_level(logging.DEBUG):
        assert np.array_equal(np.asarray(decode(data)[0]), np.asarray(decode(images()["jpeg_420"].data)[0]))


def test_the_format_follows_from_the_bytes() -> None:
    for name, image in images().items():
        expected = {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}[name.split("_")[0]]
        assert decode(image.data)[1].format == expected
    for other in ("GIF", "TIFF", "BMP", "ICO", "PPM"):
        with pytest.raises(NotAnImage):
            decode(encoded(scene(), other))


def test_four_threads_decode_as_one_does() -> None:
    files = [image.data for image in images().values()] * 4
    alone = [np.asarray(decode(data)[0]) for data in files]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda data: np.asarray(decode(data)[0]), files))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_no_other_reader_of_pillow_is_ever_loaded() -> None:
    program = (
        "import sys; from pathlib import Path; from service.images.preprocessing import decode\n"
        "for file in sorted(Path(sys.argv[1]).iterdir()): decode(file.read_bytes())\n"
        "print(sorted(m for m in sys.modules if m.startswith('PIL.') and m.endswith('Plugin')))"
    )
    result = subprocess.run([sys.executable, "-W", "error", "-c", program, FIXTURES], capture_output=True, check=True)
    readers = [f"PIL.{name}ImagePlugin" for name in ("Jpeg", "Png", "WebP")]
    assert result.stdout.decode().strip() == str(readers)
    assert result.stderr == b""


def test_the_committed_images_are_those_that_the_tests_make() -> None:
    stored = {file.stem: file.read_bytes() for file in FIXTURES.iterdir()}
    assert stored.keys() == images().keys()
    for name, data in stored.items():
        assert np.array_equal(np.asarray(decode(data)[0]), np.asarray(decode(images()[name].data)[0]))
