"""A JPEG whose end is missing is taken while it can be shown, and says so; one that is cut in half is refused."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.errors import BadImage, ServiceError
from service.images.header import read_header
from service.images.jpeg_segments import SOS, jpeg_segments
from service.images.preprocessing import ImageInfo, TruncatedImageInfo, decode, decode_reduced, image_to_pixels
from service.images.truncated_jpeg import with_end_marker
from tests.service.images.test_preprocessing import large_photo
from tests.support.image_files.images import encoded, images, scene

WIDTH, HEIGHT = 480, 640  # 40 rows of blocks of 16, so one is 2.5%
PHOTO = scene(WIDTH, HEIGHT)
KINDS = {
    "420": {"subsampling": 2},
    "422": {"subsampling": 1},
    "444": {"subsampling": 0},
    "optimised": {"optimize": True},
    "restarts": {"restart_marker_blocks": 7},
}
SEQUENTIAL = {
    **{name: encoded(PHOTO, "JPEG", **how) for name, how in KINDS.items()},
    "grey": encoded(PHOTO.convert("L"), "JPEG"),
    "cmyk": encoded(PHOTO.convert("CMYK"), "JPEG"),
}
PROGRESSIVE = {
    "progressive": encoded(PHOTO, "JPEG", progressive=True),
    "progressive_grey": encoded(PHOTO.convert("L"), "JPEG", progressive=True),
    "progressive_cmyk": encoded(PHOTO.convert("CMYK"), "JPEG", progressive=True),
}
TRUNCATED = TruncatedImageInfo("JPEG", WIDTH, HEIGHT)


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(decode(data)[0])


def rows_shown(data: bytes, whole: NDArray[np.uint8]) -> int:
    """How many rows from the top are as in the whole image."""
    return int(np.append((pixels_of(data) == whole).all(axis=(1, 2)), False).argmin())


def one_by_one(data: bytes) -> bytes:
    """A baseline JPEG whose scans hold one component each: three grey JPEGs of the same tables, put together."""
    bands = [encoded(band, "JPEG", quality=75) for band in Image.open(io.BytesIO(data)).convert("RGB").split()]
    head = bands[0][: next(start for kind, start, _ in jpeg_segments(bands[0], 2) if kind == 0xC0)]
    frame = b"\xff\xc0\x00\x11\x08" + HEIGHT.to_bytes(2) + WIDTH.to_bytes(2) + b"\x03R\x11\x00G\x11\x00B\x11\x00"
    tables = b"".join(bands[0][start:end] for kind, start, end in jpeg_segments(bands[0], 2) if kind == 0xC4)
    scans = b"".join(
        b"\xff\xda\x00\x08\x01" + name + b"\x00\x00\x3f\x00" + band[end:-2]
        for name, band in zip((b"R", b"G", b"B"), bands, strict=True)
        for kind, _, end in jpeg_segments(band, 2)
        if kind == SOS
    )
    return head + frame + tables + scans + b"\xff\xd9"


ONE_BY_ONE = one_by_one(SEQUENTIAL["444"])


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("name", [*SEQUENTIAL, *PROGRESSIVE, "one_by_one"])
def test_a_jpeg_without_its_end_gives_all_pixels_and_says_so(name: str, missing: int) -> None:
    data = (SEQUENTIAL | PROGRESSIVE | {"one_by_one": ONE_BY_ONE})[name]
    image, info = decode(data[:-missing])
    assert info == TRUNCATED and info.truncated
    assert np.array_equal(np.asarray(image), pixels_of(data))
    assert decode(data)[1] == ImageInfo("JPEG", WIDTH, HEIGHT)


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_ninety_five_percent_of_the_rows_are_enough(name: str) -> None:
    data, taken = SEQUENTIAL[name], []
    whole = pixels_of(data)
    for missing in range(2, len(data) // 5, len(data) // 200):
        try:
            taken.append(rows_shown(data[:-missing], whole) / HEIGHT)
        except BadImage:
            break
    assert len(taken) > 3 and min(taken) >= 0.94  # the row above a missing one is smoothed into it
    cut = next(end for end in range(len(data), 0, -20) if with_end_marker(data[:end]) is None)
    refilled = pixels_of(data[:cut] + b"\xff\xd9")
    assert (refilled == whole).all(axis=(1, 2)).argmin() / HEIGHT < 0.96


@pytest.mark.parametrize("name", SEQUENTIAL)
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.9])
def test_a_jpeg_cut_in_half_is_refused(name: str, share: float) -> None:
    data = SEQUENTIAL[name]
    for filling in (b"", bytes(len(data) // 2), b"\xff" * 1000):
        with pytest.raises(BadImage, match="broken or truncated"):
            decode(data[: int(share * len(data))] + filling)


@pytest.mark.parametrize("name", PROGRESSIVE)
def test_a_progressive_jpeg_is_taken_from_its_first_scans_on(name: str) -> None:
    data = PROGRESSIVE[name]
    header = read_header(data)
    seen: set[int] = set()
    components = {1: 1, 3: 3, 4: 4}[header.bytes_per_pixel]
    scans = [
        (start, set(data[start + 5 : start + 5 + 2 * data[start + 4] : 2]))
        for kind, start, _ in jpeg_segments(data, 2)
        if kind == SOS
    ]
    for number, (start, parts) in enumerate(scans):
        seen |= parts
        if len(seen) == components:
            last_first, next_scan = start, scans[number + 1][0]
            break
    with pytest.raises(BadImage):
        decode(data[: last_first + 200])
    for end in range(next_scan + 14, len(data), len(data) // 40):
        image, info = decode(data[:end])
        assert info == TRUNCATED
        assert np.abs(np.asarray(image).astype(int) - pixels_of(data)).mean() < 8


def test_scans_of_one_component_need_their_rows_too() -> None:
    whole = pixels_of(ONE_BY_ONE)
    last = [start for kind, start, _ in jpeg_segments(ONE_BY_ONE, 2) if kind == SOS][-1]
    size = len(ONE_BY_ONE) - last
    assert rows_shown(ONE_BY_ONE[: -size // 50], whole) >= 0.95 * HEIGHT
    for end in (last, last + 100, last + size // 2, last + size * 9 // 10, len(ONE_BY_ONE) // 2):
        with pytest.raises(BadImage):
            decode(ONE_BY_ONE[:end])


def test_a_small_jpeg_may_lack_its_end_but_nothing_else() -> None:
    data = images()["jpeg_420"].data  # three rows of blocks
    assert np.array_equal(pixels_of(data[:-2]), pixels_of(data))
    with pytest.raises(BadImage):
        decode(data[:-40])


@pytest.mark.parametrize("name", ["420", "progressive", "cmyk"])
def test_every_way_of_decoding_takes_the_same_files(name: str) -> None:
    """At full size, at the network's own size, and at a reduced one; for training, export and serving alike."""
    data = (SEQUENTIAL | PROGRESSIVE)[name]
    for end in range(len(data) // 2, len(data) + 1, len(data) // 60):
        outcomes = []
        for way in (
            decode,
            lambda cut: image_to_pixels(cut, shorter_side=WIDTH, crop=(HEIGHT, WIDTH)),
            lambda cut: image_to_pixels(cut, shorter_side=32, crop=(32, 32)),
            lambda cut: decode_reduced(cut, 224),
        ):
            try:
                way(data[:end])
                outcomes.append(True)
            except ServiceError:
                outcomes.append(False)
        assert len(set(outcomes)) == 1


def test_a_large_jpeg_is_judged_alike_at_every_scale() -> None:
    data = large_photo(2400, 1900)
    ends = range(int(0.9 * len(data)), len(data), len(data) // 200)
    for end in ends:
        outcomes = set()
        for side in (32, 224, 400, 900):
            try:
                info = image_to_pixels(data[:end], shorter_side=side, crop=(side, side))[1]
                outcomes.add(isinstance(info, TruncatedImageInfo))
            except BadImage:
                outcomes.add(False)
        assert len(outcomes) == 1


@pytest.mark.parametrize("after", [b"", bytes(600), b"\x00\x01junk" * 50])
def test_what_follows_a_whole_image_does_not_make_it_truncated(after: bytes) -> None:
    for data in (SEQUENTIAL["420"], PROGRESSIVE["progressive"]):
        image, info = decode(data + after)
        assert info == ImageInfo("JPEG", WIDTH, HEIGHT)
        assert np.array_equal(np.asarray(image), pixels_of(data))


@pytest.mark.parametrize("name", ["png_rgb_8", "webp_lossy"])
def test_png_and_webp_are_taken_as_pillow_takes_them(name: str) -> None:
    """A PNG may lack what follows its pixels, a WebP file nothing; neither says that anything is missing."""
    data = images()[name].data
    for missing in range(1, 60):
        try:
            Image.open(io.BytesIO(data[:-missing])).load()
            is_taken = True
        except (OSError, SyntaxError):
            is_taken = False
        if is_taken:
            assert type(decode(data[:-missing])[1]) is ImageInfo
        else:
            with pytest.raises(BadImage):
                decode(data[:-missing])
