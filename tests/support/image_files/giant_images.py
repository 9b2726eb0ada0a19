"""Images that compress to almost nothing, 26 million pixels or (JPEG) more: the most that the limits let through."""

import io
import zlib
from collections.abc import Callable, Iterator

from PIL import Image

from tests.support.image_files.hostile_images import jpeg_of_scans, scan
from tests.support.image_files.images import ADAM7, CHANNELS, chunk, encoded, exif, png_file, segment, with_segments

WIDTH, HEIGHT = 5200, 5000
PAETH = 4  # the dearest of PNG's filters


def giant_png(depth: int, colour: int, *before: bytes, interlaced: bool = False, height: int = HEIGHT) -> bytes:
    """Return a PNG of zeros, turned by its EXIF block."""
    packer, packed = zlib.compressobj(1), io.BytesIO()
    for row, rows in _passes(depth * CHANNELS[colour], height, interlaced):
        for start in range(0, rows, 500):
            packed.write(packer.compress(row * min(500, rows - start)))
    packed.write(packer.flush())
    pixels = chunk(b"IDAT", packed.getvalue())
    return png_file(WIDTH, height, depth, colour, *before, chunk(b"eXIf", exif(7)), pixels, interlaced=interlaced)


def _passes(bits: int, height: int, interlaced: bool) -> Iterator[tuple[bytes, int]]:
    for left, top, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        width = (WIDTH - left + across - 1) // across
        yield bytes((PAETH,)) + bytes((width * bits + 7) // 8), (height - top + down - 1) // down


def _giant_pngs() -> dict[str, Callable[[], bytes]]:
    palette = chunk(b"PLTE", bytes(range(256)) * 3) + chunk(b"tRNS", bytes(range(256)))
    modes = ((1, 0), (2, 0), (8, 0), (16, 0), (8, 2), (8, 3), (8, 4), (16, 4), (8, 6))
    plain: dict[str, Callable[[], bytes]] = {
        f"png_{depth}_bits_colour_{colour}{'_interlaced' * interlaced}": (
            lambda depth=depth, colour=colour, interlaced=interlaced: giant_png(  # type: ignore[misc]
                depth, colour, *[palette] * (colour == 3), interlaced=interlaced
            )
        )
        for depth, colour in modes
        for interlaced in (False, True)
    }
    black = chunk(b"tRNS", bytes(6))
    return plain | {
        "png_16_bits_grey_key": lambda: giant_png(16, 0, chunk(b"tRNS", bytes(2))),
        "png_8_bits_key": lambda: giant_png(8, 2, black, height=4000),
        "png_16_bits_key": lambda: giant_png(16, 2, black, height=1666),
        "png_16_bits_key_interlaced": lambda: giant_png(16, 2, black, height=1666, interlaced=True),
        "png_16_bits_alpha": lambda: giant_png(16, 6, height=2500, interlaced=True),
    }


def _turned(mode: str, **settings: object) -> bytes:
    flat = encoded(Image.new(mode, (WIDTH, HEIGHT)), "JPEG", **settings)
    return with_segments(flat, segment(0xE1, b"Exif\x00\x00" + exif(7)))


def _coarse_to_fine(components: int, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    parts = range(1, components + 1)
    scans = [scan(parts, approximation=9), *(scan(parts, approximation=0x10 * i + i - 1) for i in range(9, 0, -1))]
    return jpeg_of_scans(scans, width=width, height=height, components=components)


def _large_baseline(components: int) -> bytes:
    everything = scan(range(1, components + 1), last=63)
    return jpeg_of_scans([everything], width=16_000, height=13_000, components=components, frame=0xC0)


def _webp(mode: str, *, lossless: bool) -> bytes:
    return encoded(Image.new(mode, (WIDTH, HEIGHT)), "WEBP", lossless=lossless, method=0, quality=0, exif=exif(7))


def giants() -> dict[str, Callable[[], bytes]]:
    """Return a function that makes each file, by name."""
    return _giant_pngs() | {
        "jpeg_grey": lambda: _turned("L"),
        "jpeg": lambda: _turned("RGB", subsampling=0),
        "jpeg_progressive": lambda: _turned("RGB", subsampling=0, progressive=True),
        "jpeg_cmyk": lambda: _turned("CMYK", subsampling=0),
        "jpeg_10_scans_grey": lambda: _coarse_to_fine(1),
        "jpeg_10_scans": lambda: _coarse_to_fine(3),
        "jpeg_10_scans_cmyk": lambda: _coarse_to_fine(4),
        "jpeg_34_megapixels_10_scans": lambda: _coarse_to_fine(3, 5880, 5880),
        "jpeg_104_megapixels_3_scans_grey": lambda: jpeg_of_scans(
            [scan(approximation=1), *[scan(first=1, last=63, approximation=0x10)] * 2], width=10_400, height=10_000
        ),
        "jpeg_208_megapixels": lambda: _large_baseline(3),
        "jpeg_208_megapixels_cmyk": lambda: _large_baseline(4),
        "webp_lossless": lambda: _webp("RGB", lossless=True),
        "webp_lossless_alpha": lambda: _webp("RGBA", lossless=True),
        "webp_lossy": lambda: _webp("RGB", lossless=False),
        "webp_lossy_alpha": lambda: _webp("RGBA", lossless=False),
    }
