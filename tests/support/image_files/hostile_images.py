"""Files made to hurt whoever decodes them: each is refused, or gives pixels, at a bounded cost.

`hostile` maps a name to a function that makes the file and to the status it must get, or None where either a refusal or
pixels will do. `tests/support/image_files/giant_images.py` has the images that are as expensive as the limits allow.
"""

import random
import struct
import zlib
from collections.abc import Callable, Sequence

from PIL import Image

from tests.support.image_files.images import (
    chunk,
    encoded,
    exif,
    images,
    png_file,
    scene,
    segment,
    with_segments,
)

MEBIBYTE = 1 << 20
UPLOAD = 20 * MEBIBYTE  # the largest body that the service takes

Make = Callable[[], bytes]


def _quantisation_and_huffman_tables() -> bytes:
    code = bytes((0, 1)) + bytes(14) + b"\x00"
    return segment(0xDB, b"\x00" + b"\x01" * 64) + segment(0xC4, b"\x00" + code) + segment(0xC4, b"\x10" + code)


def jpeg_of_scans(
    scans: Sequence[bytes], *, width: int = 2048, height: int = 2048, components: int = 1, frame: int = 0xC2
) -> bytes:
    """Return a JPEG of given scans, none of which needs any data."""
    parts = b"".join(bytes((i + 1, 0x11, 0)) for i in range(components))
    header = segment(frame, struct.pack(">BHHB", 8, height, width, components) + parts)
    return b"\xff\xd8" + _quantisation_and_huffman_tables() + header + b"".join(scans) + b"\xff\xd9"


def scan(components: Sequence[int] = (1,), first: int = 0, last: int = 0, approximation: int = 0) -> bytes:
    """Return the header of a scan, and no data: a decoder fills in zeros for a whole image."""
    parts = b"".join(bytes((component, 0)) for component in components)
    return segment(0xDA, bytes((len(components),)) + parts + bytes((first, last, approximation)))


def _refinements(count: int) -> list[bytes]:
    return [scan(approximation=1), *[scan(first=1, last=63, approximation=0x10)] * (count - 1)]


def _hidden_behind_a_reserved_marker() -> bytes:
    """At a restart, libjpeg skips the marker 02 without its length; a walk that obeys the length skips the scans."""
    hidden = b"".join(_refinements(3000))
    restarts = segment(0xDD, struct.pack(">H", 1))
    return jpeg_of_scans([restarts, scan(approximation=1), b"\xff\x02\x7f\xfe", hidden])


def _hidden_behind_a_false_end() -> bytes:
    return jpeg_of_scans([scan(approximation=1), segment(0xFE, b"\xff\xd9"), *_refinements(3000)])


def _short_segment_hides_scans() -> bytes:
    return jpeg_of_scans([b"\xff\xe0\x00\x00", scan(approximation=1), b"\xff\xfe\x00\x01", *_refinements(3000)])


def _with_chunks(*chunks: bytes) -> bytes:
    data = images()["png_rgb_8"].data
    return data[:33] + b"".join(chunks) + data[33:]


def _png_of(*streams: bytes, before: bytes = b"") -> bytes:
    return png_file(9, 9, 8, 3 if before else 2, before, *[chunk(b"IDAT", stream) for stream in streams])


def _inflates(mebibytes: int) -> bytes:
    """A stream of so many zeros, each part of it the same."""
    packer = zlib.compressobj(wbits=-15)
    part = packer.compress(bytes(MEBIBYTE)) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = mebibytes * MEBIBYTE % 65_521 << 16 | 1
    return b"\x78\x9c" + part * mebibytes + b"\x03\x00" + struct.pack(">I", checksum)


def _deflate_of_empty_blocks(size: int) -> bytes:
    """A stream of blocks that each bring their own code and hold nothing: 90 bits and about a microsecond each."""
    fields = ((0, 1), (2, 2), (0, 5), (0, 5), (14, 4), *[(0, 3)] * 2, (1, 3), *[(0, 3)] * 14, (1, 3))
    fields = (*fields, (1, 1), (127, 7), (1, 1), (107, 7), (0, 1), (0, 1), (0, 1))
    block, length = 0, 0
    for value, bits in fields:
        block, length = block | value << length, length + bits
    eight = sum(block << length * i for i in range(8)).to_bytes(length, "little")
    return b"\x78\x9c" + eight * (size // length)


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a WebP file of these chunks."""
    packed = b"".join(kind + struct.pack("<I", len(body)) + body + b"\x00" * (len(body) & 1) for kind, body in chunks)
    return b"RIFF" + struct.pack("<I", len(packed) + 4) + b"WEBP" + packed


def _webp_canvas(width: int, height: int, flags: int = 0) -> tuple[bytes, bytes]:
    return b"VP8X", bytes((flags, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")


def _webp_of_frames(count: int, flags: int = 0x02) -> bytes:
    image = encoded(Image.new("RGB", (1, 1)), "WEBP", lossless=True)[12:]
    frame = b"ANMF", bytes(6) + bytes(6) + bytes(4) + image
    return riff(_webp_canvas(1000, 1000, flags), (b"ANIM", bytes(6)), *[frame] * count)


def _mpo_of_images(count: int) -> bytes:
    entries = b"".join(struct.pack("<IIIHH", 0, 500, 600 + 500 * i, 0, 0) for i in range(count))
    tags = (
        (0xB000, 7, 4, b"0100"),
        (0xB001, 4, 1, struct.pack("<I", count)),
        (0xB002, 7, 16 * count, struct.pack("<I", 50)),
    )
    index = (
        b"II*\x00"
        + struct.pack("<IH", 8, 3)
        + b"".join(struct.pack("<HHI", *tag[:3]) + tag[3] for tag in tags)
        + bytes(4)
    )
    return with_segments(images()["jpeg_420"].data, segment(0xE2, b"MPF\x00" + index + entries)) * 20


def _exif_loop() -> bytes:
    """A directory whose next directory, and whose EXIF and thumbnail parts, are itself."""
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, 8) for tag in (0x8769, 0x8825, 0xA005, 0x014A, 0x0201))
    return b"II*\x00" + struct.pack("<IH", 8, 5) + entries + struct.pack("<I", 8)


def _renamed_formats() -> dict[str, tuple[Make, int | None]]:
    written = ("GIF", "TIFF", "BMP", "ICO", "PPM", "TGA", "PCX", "SGI", "DDS", "PDF", "EPS", "JPEG2000", "AVIF", "ICNS")
    made = {
        "psd": b"8BPS\x00\x01" + bytes(6) + b"\x00\x03" + struct.pack(">II", 9, 9) + b"\x00\x08\x00\x03" + bytes(64),
        "fits": b"SIMPLE  =                    T" + b" " * 2850,
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\n",
        "html": b"<!DOCTYPE html><script>alert(1)</script>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "zip": b"PK\x03\x04" + bytes(60),
        "gzip": b"\x1f\x8b\x08" + bytes(60),
        "riff_wave": b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(40),
        "jpeg_xl": b"\xff\x0a" + bytes(40),
        "empty": b"",
        "jpeg_start_only": b"\xff\xd8",
        "png_start_broken": b"\x89PNG\r\n\x1a" + bytes(40),
    }
    by_pillow: dict[str, Make] = {name: lambda name=name: encoded(scene(64, 64), name) for name in written}  # type: ignore[misc]
    by_hand: dict[str, Make] = {name: lambda data=data: data for name, data in made.items()}  # type: ignore[misc]
    return {f"renamed_{name.lower()}": (make, 415) for name, make in (by_pillow | by_hand).items()}


def _headers() -> dict[str, tuple[Make, int | None]]:
    jpeg, all_of_png = jpeg_of_scans, (65_535, 65_535, 8, 6)
    return {
        "header_jpeg_65535": (lambda: jpeg([scan()], width=65_535, height=65_535, frame=0xC0), 422),
        "header_jpeg_65535_progressive": (lambda: jpeg([scan()], width=65_535, height=65_535), 422),
        "header_jpeg_65535_by_1": (lambda: jpeg([scan()], width=1, height=65_535), 422),
        "header_jpeg_no_height": (lambda: jpeg([scan()], height=0), 422),
        "header_jpeg_no_scan": (lambda: jpeg([]), 422),
        "header_jpeg_two_frames": (lambda: jpeg([segment(0xC0, b"\x08\x00\x10\x00\x10\x01\x01\x11\x00"), scan()]), 422),
        "header_jpeg_255_components": (lambda: jpeg([scan()], components=255), 422),
        "header_png_65535": (lambda: png_file(*all_of_png, chunk(b"IDAT", _inflates(1))), 422),
        "header_png_2_to_31": (lambda: png_file(2**31 - 1, 2**31 - 1, 1, 0), 422),
        "header_png_20000_1_bit": (lambda: png_file(20_000, 20_000, 1, 0, chunk(b"IDAT", _inflates(50))), 422),
        "header_png_nothing": (lambda: png_file(0, 0, 8, 2), 422),
        "header_png_odd_colour": (lambda: png_file(9, 9, 3, 7, chunk(b"IDAT", _inflates(1))), 422),
        "header_png_long": (lambda: b"\x89PNG\r\n\x1a\n\xff\xff\xff\xffIHDR" + bytes(64), 422),
        "header_webp_canvas": (lambda: riff(_webp_canvas(1 << 24, 1 << 24), (b"VP8L", bytes(30))), 422),
        "header_webp_lossless": (lambda: riff((b"VP8L", b"\x2f" + b"\xff\xff\xff\x0f" + bytes(30))), 422),
        "header_webp_lossy": (lambda: riff((b"VP8 ", bytes(3) + b"\x9d\x01\x2a\xff\xff\xff\xff" + bytes(30))), 422),
        "header_webp_unknown": (lambda: riff((b"VP9 ", bytes(40))), 422),
    }


def _jpeg_bombs() -> dict[str, tuple[Make, int | None]]:
    photo = images()["jpeg_420"].data
    progressive = images()["jpeg_progressive"].data
    bombs: dict[str, tuple[Make, int | None]] = {
        f"scans_{count}": (lambda count=count: jpeg_of_scans(_refinements(count)), 422)  # type: ignore[misc]
        for count in (101, 400, 1000, 10_000, 200_000)
    }
    return bombs | {
        "scans_100_of_2_megapixels": (lambda: jpeg_of_scans(_refinements(100), width=1600, height=1600), None),
        "scans_one_by_one_sequential": (
            lambda: jpeg_of_scans([scan([1 + i % 3]) for i in range(3000)], components=3, frame=0xC0),
            422,
        ),
        "scans_after_the_image": (lambda: jpeg_of_scans([scan()] * 3000, frame=0xC0), 422),
        "scans_behind_a_reserved_marker": (_hidden_behind_a_reserved_marker, 422),
        "scans_behind_a_false_end": (_hidden_behind_a_false_end, 422),
        "scans_behind_short_segments": (_short_segment_hides_scans, 422),
        "scans_between_filling": (lambda: jpeg_of_scans([b"\xff" * 9 + part for part in _refinements(400)]), 422),
        "arithmetic": (lambda: jpeg_of_scans([scan()], frame=0xC9), 422),
        "arithmetic_progressive": (lambda: jpeg_of_scans([scan()], frame=0xCA), 422),
        "lossless": (lambda: jpeg_of_scans([scan()], frame=0xC3), 422),
        "fill_before_the_image": (lambda: photo[:2] + b"\xff" * UPLOAD + photo[2:], None),
        "zeros_before_the_image": (lambda: photo[:2] + bytes(UPLOAD) + photo[2:], None),
        "stuffing_before_the_image": (lambda: photo[:2] + b"\xff\x00" * (UPLOAD // 2) + photo[2:], None),
        "fill_within_the_scan": (lambda: photo[:-400] + b"\xff" * UPLOAD + photo[-400:], None),
        "fill_within_a_progressive_scan": (lambda: progressive[:-400] + b"\xff" * UPLOAD + progressive[-400:], None),
        "restarts_within_a_progressive_scan": (
            lambda: progressive[:-400] + b"\xff\xd0" * (UPLOAD // 2) + progressive[-400:],
            None,
        ),
        "junk_after_the_image": (lambda: photo + random.Random(4).randbytes(UPLOAD), 200),
        "many_comments": (lambda: with_segments(photo, *[segment(0xFE, b"")] * 5_000_000), 422),
        "long_comments": (lambda: with_segments(photo, *[segment(0xFE, bytes(65_000))] * 300), 200),
        "comments_between_scans": (lambda: jpeg_of_scans([scan(approximation=1), segment(0xFE, b"") * 5_000_000]), 422),
        "many_tables": (lambda: with_segments(photo, *[segment(0xDB, (b"\x00" + b"\x01" * 64) * 1000)] * 300), 422),
        "many_jfif_headers": (lambda: with_segments(photo, *[segment(0xE0, b"JFIF\x00" + bytes(9))] * 9000), None),
        "many_mpo_images": (lambda: _mpo_of_images(1000), 200),
        "exif_loop": (lambda: with_segments(photo, segment(0xE1, b"Exif\x00\x00" + _exif_loop())), 200),
        "many_exif_segments": (lambda: with_segments(photo, *[segment(0xE1, b"Exif\x00\x00" + exif(3))] * 9000), 200),
    }


def _png_bombs() -> dict[str, tuple[Make, int | None]]:
    text, long_text = b"Comment\x00\x00", b"Comment\x00\x01\x00\x00\x00"
    frame = chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 45, 35, 0, 0, 1, 1, 0, 0)) + chunk(b"fdAT", bytes(40))
    exif_block = b"II*\x00\x08\x00\x00\x00\xff\xff" + b"\x00\x01\x03\x00\x01\x00\x00\x00\x00\x00\x00\x00" * 5000
    return {
        "png_million_chunks": (lambda: _with_chunks(chunk(b"tIME", b"") * 1_000_000), 422),
        "png_million_empty_pixels": (lambda: _with_chunks(chunk(b"IDAT", b"") * 1_000_000), 422),
        "png_profile_bomb": (lambda: _with_chunks(chunk(b"iCCP", b"p\x00\x00" + _inflates(1000))), 200),
        "png_text_bombs": (lambda: _with_chunks(chunk(b"zTXt", text + _inflates(60)) * 50), 200),
        "png_long_text_bombs": (lambda: _with_chunks(chunk(b"iTXt", long_text + _inflates(60)) * 50), 200),
        "png_pixels_bomb": (lambda: _png_of(_inflates(2000)), None),
        "png_empty_blocks": (lambda: _png_of(_deflate_of_empty_blocks(UPLOAD)), 422),
        "png_empty_blocks_in_many_chunks": (lambda: _png_of(*[_deflate_of_empty_blocks(9000)] * 2000), 422),
        "png_stored_nothing": (lambda: _png_of(b"\x78\x9c" + b"\x00\x00\x00\xff\xff" * 4_000_000), 422),
        "png_4900_frames": (lambda: _with_chunks(chunk(b"acTL", struct.pack(">II", 4_900, 0)), frame * 4_900), 200),
        "png_many_exif_chunks": (lambda: _with_chunks(chunk(b"eXIf", exif_block) * 320), 200),
        "png_exif_loop": (lambda: _with_chunks(chunk(b"eXIf", _exif_loop())), 200),
        "png_palette_too_long": (lambda: _png_of(_inflates(1), before=chunk(b"PLTE", bytes(UPLOAD))), None),
        "png_many_alphas": (lambda: _png_of(_inflates(1), before=chunk(b"tRNS", b"\xff" * UPLOAD)), None),
    }


def _webp_bombs() -> dict[str, tuple[Make, int | None]]:
    return {
        "webp_many_frames": (lambda: _webp_of_frames(300_000), 200),
        "webp_many_frames_and_exif": (lambda: _webp_of_frames(300_000, flags=0x0A), 422),
        "webp_many_chunks": (lambda: riff(_webp_canvas(9, 9, 0x08), *[(b"junk", b"")] * 2_000_000), 422),
        "webp_exif_loop": (lambda: encoded(scene(), "WEBP", exif=_exif_loop()), 200),
    }


def hostile() -> dict[str, tuple[Make, int | None]]:
    """Return all of them by name: how to make the file, and the status it must get (None: pixels or a refusal)."""
    noise = {f"random_{size}": (lambda size=size: random.Random(size).randbytes(size), 415) for size in (1, 30, 5000)}  # type: ignore[misc]
    starts = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n", "webp": b"RIFF\xff\xff\x00\x00WEBPVP8X"}
    after = {
        f"random_after_{name}": (lambda start=start: start + random.Random(9).randbytes(UPLOAD // 4), 422)  # type: ignore[misc]
        for name, start in starts.items()
    }
    return noise | after | _renamed_formats() | _headers() | _jpeg_bombs() | _png_bombs() | _webp_bombs()
