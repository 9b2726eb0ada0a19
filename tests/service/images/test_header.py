"""The walk over a file's header: what it reads, what it leaves out, and what it refuses."""

import io
import struct
import zlib

import pytest
from PIL import Image

from service.errors import BadImage, NotAnImage
from service.images.header import MAX_PARTS, MAX_TABLE_BYTES, read_header, read_orientation
from tests.support.image_files.hostile_images import hostile, jpeg_of_scans, riff, scan
from tests.support.image_files.images import chunk, encoded, exif, images, png_file, scene, segment, with_segments


@pytest.mark.parametrize("name", images())
def test_the_size_is_that_which_pillow_reads(name: str) -> None:
    header = read_header(images()[name].data)
    image = Image.open(io.BytesIO(images()[name].data))
    assert (header.width, header.height) == image.size
    assert header.format == {"jpeg": "JPEG", "png": "PNG", "webp": "WEBP"}[name.split("_", maxsplit=1)[0]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_read_from_every_format_in_both_byte_orders(orientation: int) -> None:
    for order in "<>":
        block = exif(orientation, order)
        jpeg = with_segments(images()["jpeg_420"].data, segment(0xE1, b"Exif\x00\x00" + block))
        webp = encoded(scene(), "WEBP", exif=block)
        webp_with_prefix = encoded(scene(), "WEBP", exif=b"Exif\x00\x00" + block)
        png = png_file(1, 1, 8, 0, chunk(b"eXIf", block))
        late_png = png_file(1, 1, 8, 0, chunk(b"IDAT", b""), chunk(b"eXIf", block))
        for data in (jpeg, webp, webp_with_prefix, png, late_png):
            assert read_header(data).orientation == orientation


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II*\x00",
        b"MM*\x00\x00\x00\x00\x08",
        exif(0),
        exif(9),
        exif(65_535, ">"),
        exif(6)[:15],
        b"II*\x00\xff\xff\xff\xff" + bytes(20),
        exif(6).replace(b"\x12\x01\x03\x00", b"\x12\x01\x05\x00"),
        exif(6).replace(b"\x12\x01\x03\x00\x01", b"\x12\x01\x03\x00\x00"),
    ],
)
def test_an_orientation_that_makes_no_sense_is_none(block: bytes) -> None:
    assert read_orientation(block) == 1


def test_the_first_exif_segment_of_a_jpeg_and_the_last_chunk_of_a_png_count() -> None:
    segments = [segment(0xE1, b"Exif\x00\x00" + exif(turn)) for turn in (3, 6)]
    assert read_header(with_segments(images()["jpeg_420"].data, *segments)).orientation == 3
    assert read_header(png_file(1, 1, 8, 0, *[chunk(b"eXIf", exif(turn)) for turn in (3, 6)])).orientation == 6


def test_a_webp_file_whose_flags_deny_its_exif_has_none() -> None:
    data = bytearray(encoded(scene(), "WEBP", exif=exif(6)))
    assert read_header(bytes(data)).orientation == 6
    data[20] &= ~0x08
    assert read_header(bytes(data)).orientation == 1


@pytest.mark.parametrize(
    ("name", "scans"), [("jpeg_420", 1), ("jpeg_restarts", 1), ("jpeg_progressive_grey", 6), ("jpeg_progressive", 10)]
)
def test_scans_are_counted(name: str, scans: int) -> None:
    assert read_header(images()[name].data).scans == scans


def test_every_scan_counts_that_the_decoder_would_see() -> None:
    components = [scan([1]), scan([2]), scan([3])]
    assert read_header(jpeg_of_scans(components, components=3, frame=0xC0)).scans == 3
    assert read_header(jpeg_of_scans([scan(), segment(0xC4, b""), b"\xff\xff", scan()])).scans == 2
    assert read_header(jpeg_of_scans([scan(), b"\x00\xff\x00\xff\xd0\x01", scan()])).scans == 2
    assert read_header(jpeg_of_scans([scan(), segment(0xFE, b"\xff\xd9\xff\xda"), scan()])).scans == 2
    assert read_header(jpeg_of_scans([scan(), b"\xff\x01", scan()]) + scan()).scans == 2


@pytest.mark.parametrize(
    "between",
    [b"\xff\x02\x7f\xfe", b"\xff\xbf", b"\xff\xd8", b"\xff\xf0", b"\xff\xfe\x00\x01", b"\xff\xde"],
)
def test_what_a_decoder_may_read_in_another_way_is_refused(between: bytes) -> None:
    with pytest.raises(BadImage):
        read_header(jpeg_of_scans([scan(), between, scan()]))


def test_a_scan_bomb_is_told_without_decoding() -> None:
    for count in (101, 400, 1000):
        assert read_header(hostile()[f"scans_{count}"][0]()).scans == count


def test_metadata_does_not_reach_the_decoder() -> None:
    photo = images()["jpeg_420"].data
    extras = [segment(kind, b"\xff\xda" * 40) for kind in (*range(0xE1, 0xEE), 0xEF, 0xFE)]
    assert read_header(with_segments(photo, *extras)).content == photo
    png = images()["png_palette_8_alpha"].data
    kinds = (b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf", b"acTL", b"fcTL", b"gAMA", b"prVt")
    assert read_header(png[:33] + b"".join(chunk(kind, b"\x00" * 99) for kind in kinds) + png[33:]).content == png


@pytest.mark.parametrize("name", ["jpeg_420", "jpeg_progressive", "png_rgb_8", "webp_lossy", "webp_alpha"])
def test_a_file_of_which_nothing_is_left_out_is_not_copied(name: str) -> None:
    data = images()[name].data
    assert read_header(data).content is data


def test_more_parts_than_any_encoder_writes_are_refused() -> None:
    photo, comment = images()["jpeg_420"].data, segment(0xFE, b"")
    assert read_header(with_segments(photo, *[comment] * (MAX_PARTS - 50))).content == photo
    with pytest.raises(BadImage, match="10,000 segments"):
        read_header(with_segments(photo, *[comment] * MAX_PARTS))
    with pytest.raises(BadImage, match="10,000 chunks"):
        read_header(png_file(1, 1, 8, 0, chunk(b"IDAT", b"") * MAX_PARTS))
    canvas = b"VP8X", b"\x08" + bytes(9)
    with pytest.raises(BadImage, match="10,000 chunks"):
        read_header(riff(canvas, *[(b"junk", b"")] * MAX_PARTS))


def test_more_tables_than_any_encoder_writes_are_refused() -> None:
    photo, tables = images()["jpeg_420"].data, segment(0xDB, bytes(65_000))
    assert MAX_TABLE_BYTES > 2 * 65_000 > len(read_header(with_segments(photo, tables)).content) - len(photo)
    with pytest.raises(BadImage, match="tables"):
        read_header(with_segments(photo, tables, tables, tables))


def test_a_png_says_how_many_bytes_a_pixel_unpacks_to() -> None:
    modes = {(1, 0): 1, (8, 0): 1, (16, 0): 2, (8, 2): 3, (16, 2): 6, (4, 3): 1, (16, 4): 4, (8, 6): 4, (16, 6): 8}
    for (depth, colour), expected in modes.items():
        assert read_header(png_file(1, 1, depth, colour)).bytes_per_pixel == expected
    assert read_header(png_file(1, 1, 16, 2, chunk(b"tRNS", bytes(6)))).bytes_per_pixel == 12
    assert read_header(png_file(1, 1, 8, 2, chunk(b"tRNS", bytes(6)))).bytes_per_pixel == 5


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\xff\xd8", b"\x89PNG", b"RIFF", b"GIF89a" + bytes(40), b"BM" + bytes(60)]
)
def test_other_files_are_not_images(data: bytes) -> None:
    with pytest.raises(NotAnImage):
        read_header(data)


@pytest.mark.parametrize("name", ["jpeg_420", "png_rgb_8", "webp_lossy", "webp_lossless", "webp_alpha"])
def test_a_header_cut_off_anywhere_is_refused_or_read_as_before(name: str) -> None:
    data = images()[name].data
    whole = read_header(data)
    for end in range(12, min(len(data), 700)):
        try:
            header = read_header(data[:end])
        except BadImage:
            continue
        assert (header.width, header.height) == (whole.width, whole.height)


def test_checksums_are_left_to_the_decoder() -> None:
    body = struct.pack(">IIBBBBB", 7, 9, 8, 2, 0, 0, 0)
    wrong = struct.pack(">I", zlib.crc32(body))
    header = read_header(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + body + wrong)
    assert (header.width, header.height) == (7, 9)
