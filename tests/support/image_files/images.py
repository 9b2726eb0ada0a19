"""Small images in every mode that JPEG, PNG and WebP have, and what they must look like.

PNG is written here sample by sample, because no library writes all of its modes; so what each pixel must become is
known from the standard and not from the decoder under test. `python -m tests.support.image_files.images` writes them to
`tests/fixtures/images`.
"""

import functools
import io
import struct
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

FIXTURES = Path(__file__).parents[2] / "fixtures" / "images"
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

Samples = NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class NamedFile:
    """A file, and its pixels on white before any turning, uint8 (height, width, 3); None: as Pillow decodes it."""

    data: bytes
    rgb: NDArray[Any] | None = None


@functools.cache
def scene(width: int = 45, height: int = 35) -> Image.Image:
    """Return a landscape: a sky with a sun above hills, with some grain, RGB."""
    y, x = np.mgrid[0:height, 0:width] / (height, width)[1]
    grain = np.random.default_rng(7).normal(0, 6, (height, width, 1))
    sky = np.dstack((90 + 120 * y, 140 + 60 * y, 230 - 40 * y))
    hills = np.dstack((40 + 60 * x, 110 - 50 * y, 30 + 20 * x))
    image = np.where((y > 0.45 + 0.12 * np.sin(7 * x))[..., None], hills, sky)
    image[(x - 0.7) ** 2 + (y - 0.18) ** 2 < 0.01] = (255, 240, 150)
    return Image.fromarray(np.clip(image + grain, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, image_format: str, **settings: Any) -> bytes:
    """Return the image as a file, written by Pillow."""
    file = io.BytesIO()
    image.save(file, image_format, **settings)
    return file.getvalue()


def exif(orientation: int, byte_order: str = "<") -> bytes:
    """Return a TIFF-structured EXIF block with an orientation between two other entries."""
    start = b"II*\x00" if byte_order == "<" else b"MM\x00*"
    entries = (
        (0x0110, 2, 2, b"C\x00\x00\x00"),
        (0x0112, 3, 1, struct.pack(byte_order + "HH", orientation, 0)),
        (0x0128, 3, 1, struct.pack(byte_order + "HH", 2, 0)),
    )
    packed = b"".join(struct.pack(byte_order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    return start + struct.pack(byte_order + "IH", 8, len(entries)) + packed + bytes(4)


def segment(marker: int, body: bytes) -> bytes:
    """Return one JPEG segment."""
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """Return the JPEG with segments put in directly after its first marker."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def chunk(kind: bytes, body: bytes) -> bytes:
    """Return one PNG chunk."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_file(width: int, height: int, depth: int, colour: int, *chunks: bytes, interlaced: bool = False) -> bytes:
    """Return a PNG of these chunks between its header and its end."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(chunks) + chunk(b"IEND", b"")


def png(
    samples: Samples, depth: int, colour: int, *before: bytes, after: bytes = b"", interlaced: bool = False
) -> bytes:
    """Return samples (height, width, channels) as a PNG, its pixels in three chunks, with chunks before and after."""
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [samples]
    packed = zlib.compress(b"".join(_packed_rows(part, depth) for part in passes if part.size))
    third = len(packed) // 3
    pixels = [chunk(b"IDAT", part) for part in (packed[:third], packed[third : 2 * third], packed[2 * third :])]
    height, width, _ = samples.shape
    return png_file(width, height, depth, colour, *before, *pixels, after, interlaced=interlaced)


def _packed_rows(samples: Samples, depth: int) -> bytes:
    rows = samples.reshape(len(samples), -1)
    if depth == 16:
        data = rows.astype(">u2").view(np.uint8)
    else:
        bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        data = np.packbits(bits.reshape(len(rows), -1), axis=-1)
    return np.hstack((np.zeros((len(rows), 1), np.uint8), data)).tobytes()


def _on_white(colour: NDArray[Any], alpha: NDArray[Any]) -> NDArray[Any]:
    blended: NDArray[Any] = np.rint((colour.astype(float) * alpha + 255.0 * (255 - alpha)) / 255)
    return blended.astype(np.uint8)


def _grey_and_colour_pngs() -> dict[str, NamedFile]:
    """Every depth of grey and of RGB: without transparency, with one transparent colour, and with an alpha channel."""
    images = {}
    rgb = np.asarray(scene())
    grey = np.asarray(scene().convert("L"))[..., None]
    alpha = np.add.outer(np.arange(rgb.shape[0]), np.arange(rgb.shape[1]))[..., None] * 2 % 256
    low = np.random.default_rng(3).integers(0, 256, rgb.shape)
    for colour, depth in ((0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)):
        values = grey if colour == 0 else rgb
        stored = (values.astype(int) << 8 | low[..., : values.shape[-1]]) >> (16 - depth)
        shown = stored >> 8 if depth == 16 else stored * 255 // (2**depth - 1)
        shown = np.broadcast_to(shown, rgb.shape).astype(np.uint8)
        samples = stored.astype(np.uint16)
        name = f"png_{'grey' if colour == 0 else 'rgb'}_{depth}"
        images[name] = NamedFile(png(samples, depth, colour), shown)
        images[f"{name}_interlaced"] = NamedFile(png(samples, depth, colour, interlaced=True), shown)
        key = samples[5, 40]
        keyed = np.where((samples == key).all(-1, keepdims=True), 255, shown).astype(np.uint8)
        images[f"{name}_key"] = NamedFile(
            png(samples, depth, colour, chunk(b"tRNS", key.astype(">u2").tobytes())), keyed
        )
        if depth >= 8:
            stored_alpha = alpha if depth == 8 else alpha << 8 | low[..., :1]
            with_alpha = np.dstack((samples, stored_alpha)).astype(np.uint16)
            images[f"{name}_alpha"] = NamedFile(png(with_alpha, depth, colour + 4), _on_white(shown, alpha))
    return images


def _palette_pngs() -> dict[str, NamedFile]:
    images = {}
    palette = np.random.default_rng(5).integers(0, 256, (256, 3)).astype(np.uint8)
    for depth in (1, 2, 4, 8):
        colours = 2**depth
        indices = np.asarray(scene().convert("L"))[..., None] >> (8 - depth)
        plte = chunk(b"PLTE", palette[:colours].tobytes())
        shown = palette[indices[..., 0]]
        images[f"png_palette_{depth}"] = NamedFile(png(indices.astype(np.uint16), depth, 3, plte), shown)
        one_clear = np.full(colours, 255)
        one_clear[indices[5, 40, 0]] = 0
        some_alpha = np.linspace(0, 255, colours - colours // 3).astype(int)
        for name, alphas in (("one_clear", one_clear), ("alpha", some_alpha)):
            data = png(indices.astype(np.uint16), depth, 3, plte, chunk(b"tRNS", bytes(alphas.tolist())))
            all_alphas = np.concatenate((alphas, np.full(colours - len(alphas), 255)))
            expected = _on_white(shown, all_alphas[indices])
            images[f"png_palette_{depth}_{name}"] = NamedFile(data, expected)
    return images


def _special_pngs() -> dict[str, NamedFile]:
    rgb = np.asarray(scene())
    samples = rgb.astype(np.uint16)
    frames = [scene(), scene().rotate(180)]
    return {
        "png_exif_before": NamedFile(png(samples, 8, 2, chunk(b"eXIf", exif(6))), rgb),
        "png_exif_after": NamedFile(png(samples, 8, 2, after=chunk(b"eXIf", exif(8, ">"))), rgb),
        "png_animated": NamedFile(encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]), rgb),
        "png_animated_apart": NamedFile(
            encoded(frames[0], "PNG", save_all=True, append_images=frames, default_image=True), rgb
        ),
        "png_metadata": NamedFile(encoded(scene(), "PNG", icc_profile=_profile(), dpi=(72, 72)), rgb),
        "png_one_pixel": NamedFile(png(samples[:1, :1], 8, 2), rgb[:1, :1]),
    }


def _profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _jpegs() -> dict[str, NamedFile]:
    image = scene()
    cmyk = encoded(image.convert("CMYK"), "JPEG", quality=85)
    adobe = cmyk.index(b"\xff\xee")
    plain = encoded(image, "JPEG", quality=85, subsampling=2)
    files = {
        "grey": encoded(image.convert("L"), "JPEG"),
        "444": encoded(image, "JPEG", subsampling=0),
        "422": encoded(image, "JPEG", subsampling=1),
        "420": plain,
        "optimised": encoded(image, "JPEG", optimize=True, quality=95),
        "restarts": encoded(image, "JPEG", restart_marker_blocks=3),
        "progressive": encoded(image, "JPEG", progressive=True),
        "progressive_grey": encoded(image.convert("L"), "JPEG", progressive=True),
        "progressive_restarts": encoded(image, "JPEG", progressive=True, restart_marker_blocks=5),
        "cmyk_adobe": cmyk,
        "cmyk_bare": cmyk[:adobe] + cmyk[adobe + 16 :],
        "cmyk_progressive": encoded(image.convert("CMYK"), "JPEG", progressive=True),
        "stored_as_rgb": encoded(image, "JPEG", keep_rgb=True),
        "metadata": encoded(image, "JPEG", icc_profile=_profile(), comment=b"hills", dpi=(300, 300)),
        "mpo": encoded(image, "MPO", save_all=True, append_images=[image.rotate(180), image.rotate(90)]),
        "one_pixel": encoded(image.crop((0, 0, 1, 1)), "JPEG"),
        "then_junk": plain + bytes(range(256)) * 20,
    }
    turned = {
        f"exif_{orientation}_{name}": with_segments(plain, segment(0xE1, b"Exif\x00\x00" + exif(orientation, order)))
        for orientation in range(1, 9)
        for name, order in (("little", "<"), ("big", ">"))
    }
    return {f"jpeg_{name}": NamedFile(data) for name, data in (files | turned).items()}


def _webps() -> dict[str, NamedFile]:
    image, size = scene(), scene().size
    alpha = Image.linear_gradient("L").resize(size)
    clear = image.copy()
    clear.putalpha(alpha)
    frames = [clear, clear.rotate(180)]
    files = {
        "lossy": encoded(image, "WEBP", quality=80),
        "lossless": encoded(image, "WEBP", lossless=True),
        "alpha": encoded(clear, "WEBP", quality=80),
        "lossless_alpha": encoded(clear, "WEBP", lossless=True),
        "animated": encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
        "metadata": encoded(image, "WEBP", icc_profile=_profile(), xmp=b"<x/>"),
        "one_pixel": encoded(image.crop((0, 0, 1, 1)), "WEBP"),
    }
    turned = {f"exif_{turn}": encoded(image, "WEBP", exif=exif(turn, "<>"[turn % 2])) for turn in range(1, 9)}
    return {f"webp_{name}": NamedFile(data) for name, data in (files | turned).items()}


@functools.cache
def images() -> dict[str, NamedFile]:
    """Return all of them by name; the name begins with the format."""
    return _jpegs() | _grey_and_colour_pngs() | _palette_pngs() | _special_pngs() | _webps()


def main() -> None:
    FIXTURES.mkdir(parents=True, exist_ok=True)
    for name, image in images().items():
        extension = {"jpeg": "jpg"}.get(name.split("_")[0], name.split("_")[0])
        (FIXTURES / f"{name}.{extension}").write_bytes(image.data)
    sys.stdout.write(f"{len(images())} images in {FIXTURES}\n")


if __name__ == "__main__":
    main()
