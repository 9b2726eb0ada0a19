"""Which way up: EXIF of every type of number in both byte orders, wherever it may lie, and XMP where it is silent.

The right values are written down here and compared with Pillow's, the field's reference.
"""

import io
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from service.images.header import read_header
from service.images.orientation import read_orientation
from service.images.preprocessing import decode
from tests.support.image_files.images import chunk, encoded, exif, images, png_file, scene, segment, with_segments

TYPES = {  # code → letter, whether it is a number to Pillow
    1: ("B", False),
    2: ("B", False),
    3: ("H", True),
    4: ("I", True),
    6: ("b", True),
    7: ("B", False),
    8: ("h", True),
    9: ("i", True),
    11: ("f", True),
    12: ("d", True),
    13: ("I", True),
    16: ("Q", True),
}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
XMP_ELEMENT = b"<x:xmpmeta><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>"
XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\x00"
KEY = b"XML:com.adobe.xmp"
JPEG, PNG = images()["jpeg_420"].data, images()["png_rgb_8"].data


def block(kind: int, packed: bytes, order: str = "<", count: int = 1) -> bytes:
    """An EXIF block of the orientation alone; a value that does not fit the entry follows the directory."""
    start = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, count)
    return start + (
        packed.ljust(4, b"\x00") + bytes(4) if len(packed) <= 4 else struct.pack(order + "II", 26, 0) + packed
    )


def in_jpeg(exif_block: bytes) -> bytes:
    return with_segments(JPEG, segment(0xE1, b"Exif\x00\x00" + exif_block))


def in_png(*chunks: bytes) -> bytes:
    return PNG[:33] + b"".join(chunks) + PNG[33:]


def after_the_pixels(*chunks: bytes) -> bytes:
    return PNG[:-12] + b"".join(chunks) + PNG[-12:]


def as_pillow_shows(data: bytes) -> Image.Image:
    with warnings.catch_warnings(action="ignore"):
        return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def assert_like_pillow(data: bytes, *, is_turned: bool) -> None:
    image, info = decode(data)
    assert image.size == (info.width, info.height) == ((35, 45) if is_turned else (45, 35))
    assert np.array_equal(np.asarray(image), np.asarray(as_pillow_shows(data)))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", TYPES)
def test_every_type_of_number_counts_in_every_format(kind: int, order: str) -> None:
    letter, is_number = TYPES[kind]
    exif_block = block(kind, struct.pack(order + letter, 6), order)
    for data in (
        in_jpeg(exif_block),
        in_png(chunk(b"eXIf", exif_block)),
        after_the_pixels(chunk(b"eXIf", exif_block)),
        encoded(scene(), "WEBP", exif=exif_block),
        encoded(scene(), "WEBP", exif=b"Exif\x00\x00" + exif_block),
    ):
        assert_like_pillow(data, is_turned=is_number)


@pytest.mark.parametrize("order", ["<", ">"])
def test_rationals_and_the_first_of_several_numbers_count(order: str) -> None:
    for kind, packed, count in (
        (5, struct.pack(order + "II", 12, 2), 1),
        (10, struct.pack(order + "ii", 6, 1), 1),
        (3, struct.pack(order + "HH", 6, 3), 2),
        (3, struct.pack(order + "HHH", 6, 3, 3), 3),
        (4, struct.pack(order + "II", 6, 1), 2),
    ):
        assert_like_pillow(in_jpeg(block(kind, packed, order, count)), is_turned=True)


@pytest.mark.parametrize(
    "exif_block",
    [
        block(3, struct.pack("<H", 6), count=0),
        block(0, struct.pack("<H", 6)),
        block(99, struct.pack("<H", 6)),
        block(3, struct.pack("<H", 0)),
        block(9, struct.pack("<i", -6)),
        block(5, struct.pack("<II", 6, 0)),
        block(5, struct.pack("<II", 13, 2)),
        block(11, struct.pack("<f", 6.5)),
        block(4, struct.pack("<I", 250_000), count=2),
    ],
)
def test_a_number_that_makes_no_sense_turns_nothing(exif_block: bytes) -> None:
    assert_like_pillow(in_jpeg(exif_block), is_turned=False)


def test_the_first_entry_of_a_known_type_counts() -> None:
    entries = [(99, 3), (3, 6), (3, 8)]
    packed = b"".join(struct.pack("<HHIHH", 0x0112, kind, 1, turn, 0) for kind, turn in entries)
    assert_like_pillow(in_jpeg(b"II*\x00" + struct.pack("<IH", 8, 3) + packed + bytes(4)), is_turned=True)


def test_a_long_exif_block_of_a_jpeg_goes_on_in_further_segments() -> None:
    far = b"II*\x00" + struct.pack("<I", 60_100) + bytes(60_092) + exif(6)[8:]
    parts = [segment(0xE1, b"Exif\x00\x00" + far[start : start + 60_000]) for start in (0, 60_000)]
    assert_like_pillow(with_segments(JPEG, *parts), is_turned=True)


@pytest.mark.parametrize("xmp", [XMP, XMP_ELEMENT])
def test_xmp_counts_where_exif_says_nothing(xmp: bytes) -> None:
    other = exif(6).replace(b"\x12\x01", b"\x13\x02")
    itxt = KEY + b"\x00\x00\x00\x00\x00" + xmp
    packed = KEY + b"\x00\x01\x00en\x00key\x00" + zlib.compress(xmp)
    for data in (
        with_segments(JPEG, segment(0xE1, XMP_SEGMENT + xmp)),
        with_segments(JPEG, segment(0xE1, b"Exif\x00\x00" + other), segment(0xE1, XMP_SEGMENT + xmp)),
        in_png(chunk(b"iTXt", itxt)),
        in_png(chunk(b"iTXt", packed)),
        after_the_pixels(chunk(b"iTXt", itxt)),
        in_png(chunk(b"tEXt", KEY + b"\x00" + xmp)),
        in_png(chunk(b"zTXt", KEY + b"\x00\x00" + zlib.compress(xmp))),
        in_png(chunk(b"eXIf", other), chunk(b"iTXt", itxt)),
        encoded(scene(), "WEBP", xmp=xmp),
        encoded(scene(), "WEBP", xmp=xmp, exif=other),
    ):
        assert_like_pillow(data, is_turned=True)


def test_xmp_is_silent_where_exif_speaks_even_if_it_makes_no_sense() -> None:
    for turn in (1, 9):
        for data in (
            with_segments(
                JPEG,
                segment(0xE1, XMP_SEGMENT + XMP),
                segment(0xE1, b"Exif\x00\x00" + block(3, struct.pack("<H", turn))),
            ),
            in_png(
                chunk(b"iTXt", KEY + b"\x00\x00\x00\x00\x00" + XMP), chunk(b"eXIf", block(3, struct.pack("<H", turn)))
            ),
            encoded(scene(), "WEBP", xmp=XMP, exif=block(3, struct.pack("<H", turn))),
        ):
            assert_like_pillow(data, is_turned=False)


def test_the_last_xmp_segment_of_a_jpeg_counts() -> None:
    segments = [segment(0xE1, XMP_SEGMENT + XMP.replace(b"6", turn)) for turn in (b"6", b"1")]
    assert_like_pillow(with_segments(JPEG, *segments), is_turned=False)
    assert_like_pillow(with_segments(JPEG, *segments[::-1]), is_turned=True)


def test_the_raw_profile_that_imagemagick_writes_counts() -> None:
    digits = exif(6).hex().encode()
    text = b"\nexif\n%8d\n" % len(exif(6)) + b"\n".join(
        digits[start : start + 72] for start in range(0, len(digits), 72)
    )
    key = b"Raw profile type exif\x00"
    for data in (
        in_png(chunk(b"tEXt", key + text + b"\n")),
        in_png(chunk(b"zTXt", key + b"\x00" + zlib.compress(text + b"\n"))),
        after_the_pixels(chunk(b"zTXt", key + b"\x00" + zlib.compress(text))),
    ):
        assert_like_pillow(data, is_turned=True)
    both = in_png(chunk(b"tEXt", key + text), chunk(b"eXIf", exif(1)))
    assert_like_pillow(both, is_turned=False)
    assert_like_pillow(in_png(chunk(b"tEXt", b"exif\x00Exif\x00\x00" + exif(6))), is_turned=True)


def test_a_webp_file_whose_flags_deny_its_xmp_has_none() -> None:
    data = bytearray(encoded(scene(), "WEBP", xmp=XMP))
    assert read_header(bytes(data)).orientation == 6
    data[20] &= ~0x04
    assert read_header(bytes(data)).orientation == 1
    assert_like_pillow(bytes(data), is_turned=False)


def test_hostile_metadata_costs_milliseconds() -> None:
    """So many entries, texts and bombs as fit; the limit of CPU time is far above what they take."""
    entries = b"II*\x00" + struct.pack("<IH", 8, 65_535) + struct.pack("<HHII", 0x0112, 99, 1, 6) * 65_535
    bomb = zlib.compress(bytes(50_000_000))
    nothing = b"\x78\x9c" + b"\x00\x00\x00\xff\xff" * 4_000_000
    texts = chunk(b"iTXt", KEY + b"\x00\x01\x00\x00\x00" + nothing) + chunk(
        b"zTXt", b"Raw profile type exif\x00\x00" + bomb
    )
    started = time.process_time()
    assert read_orientation(entries, XMP) == 6
    assert read_header(png_file(1, 1, 8, 0, texts, chunk(b"IDAT", b""))).orientation == 1
    assert time.process_time() - started < 1
