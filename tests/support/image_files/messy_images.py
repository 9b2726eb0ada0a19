"""A folder of images as people have them: all colour modes, broken files, strays, uneven classes, odd names."""

import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

# Class → colour, and how many images of it there are.
CLASSES = {"blaue Flächen": ((40, 60, 200), 14), "grün": ((50, 190, 60), 9), "red": ((200, 50, 40), 6)}
BROKEN = {"blaue Flächen/cut.jpg", "grün/nothing.png", "red/bomb.png", "red/notes.txt"}
STRAYS = {"README.txt", "Thumbs.db"}  # and .DS_Store, which is hidden
_ROTATED = 6  # EXIF: the camera was turned by 90 degrees


def write_messy_images(folder: Path) -> Path:
    """Write 29 images that can be decoded, four files that cannot, and three that lie beside the classes."""
    for number, (name, (colour, count)) in enumerate(CLASSES.items()):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            _write_one(folder / name / f"image {index:02} ü", _noise(colour, 100 * number + index), index)
    whole = (folder / "red" / "image 00 ü.jpg").read_bytes()
    (folder / "blaue Flächen" / "cut.jpg").write_bytes(whole[: len(whole) // 3])
    (folder / "grün" / "nothing.png").touch()
    (folder / "red" / "bomb.png").write_bytes(_png_that_claims(60_000, 60_000))
    (folder / "red" / "notes.txt").write_text("red is a colour")
    for name in (*STRAYS, ".DS_Store"):
        (folder / name).write_text("not an image")
    return folder


def _noise(colour: tuple[int, ...], seed: int) -> Image.Image:
    numbers = np.random.default_rng(seed)
    width, height = random.Random(seed).choices(range(40, 90), k=2)
    return Image.fromarray(numbers.normal(colour, 30, (height, width, 3)).clip(0, 255).astype(np.uint8))


def _write_one(stem: Path, image: Image.Image, index: int) -> None:
    """Write an image in one of seven forms."""
    form = index % 7
    if form == 0:
        turned = Image.Exif()
        turned[0x0112] = _ROTATED
        image.save(stem.with_name(f"{stem.name}.jpg"), exif=turned)
    elif form == 1:
        image.convert("CMYK").save(stem.with_name(f"{stem.name}.JPG"))
    elif form == 2:
        image.putalpha(200)
        image.save(stem.with_name(f"{stem.name}.png"))
    elif form == 3:
        image.convert("P").save(stem.with_name(f"{stem.name}.png"))
    elif form == 4:
        image.save(stem.with_name(f"{stem.name}.webp"))
    elif form == 5:
        _write_16_bits(image, stem.with_name(f"{stem.name}.png"))
    else:
        image.save(stem.with_name(f"{stem.name}.jpeg"), quality=60)


def _write_16_bits(image: Image.Image, path: Path) -> None:
    pixels = np.asarray(image).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    path.write_bytes(_png(image.width, image.height, 16, rows))


def _png_that_claims(width: int, height: int) -> bytes:
    return _png(width, height, 8, b"\0" * 1000)


def _png(width: int, height: int, depth: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
