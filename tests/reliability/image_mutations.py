"""Damaged image files, each the same for the same case: flipped bits, cuts, spliced segments, header fields."""

import functools
import random
import struct
from collections.abc import Callable

from tests.support.image_files.decode_child import EDGES, MUTATORS, with_right_checksums
from tests.support.image_files.images import encoded, images, scene

SEED = 20_261_130
# Share of each format among the cases; the last three are refused by their first bytes.
FORMATS = {"JPEG": 35, "PNG": 30, "WebP": 20, "GIF": 5, "BMP": 5, "TIFF": 5}
_SIZES = (0, 1, 17, 64, 255, 4_096, 12_000, 12_001, 26_000, 65_535)
_JPEG_FRAMES = (b"\xff\xc0", b"\xff\xc1", b"\xff\xc2")
# Where the header fields of a format are; of a JPEG they follow the marker of the frame.
_FIELDS = {"PNG": (16, 29), "WebP": (4, 40), "GIF": (6, 13), "BMP": (2, 54), "TIFF": (4, 60)}


@functools.cache
def seeds() -> dict[str, list[bytes]]:
    """Return undamaged files of each format."""
    known = images()
    found = {name: [image.data for key, image in known.items() if key.startswith(name.lower())] for name in FORMATS}
    for name in ("GIF", "BMP", "TIFF"):
        found[name] = [encoded(scene(), name), encoded(scene().convert("L"), name)]
    found["TIFF"].append(encoded(scene(), "TIFF", compression="tiff_lzw"))
    return found


def mutated_image(case: int) -> tuple[str, bytes]:
    """Return the format that a damaged file had, and the file."""
    dice = random.Random(SEED + case)
    (name,) = dice.choices(list(FORMATS), list(FORMATS.values()))
    data = bytearray(dice.choice(seeds()[name]))
    every = [file for files in seeds().values() for file in files]
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        _mutator(name, dice)(data, dice, every)
    repaired = data.startswith(b"\x89PNG") and dice.random() < 0.7
    return name, with_right_checksums(bytes(data)) if repaired else bytes(data)


def _mutator(name: str, dice: random.Random) -> Callable[[bytearray, random.Random, list[bytes]], None]:
    if dice.random() < 0.25:
        return functools.partial(_write_header_field, name)
    return dice.choice(MUTATORS)


def _write_header_field(name: str, data: bytearray, dice: random.Random, _: list[bytes]) -> None:
    first, last = _fields(name, data, dice)
    size, order = dice.choice((1, 2, 4)), "<" if name in ("WebP", "GIF", "BMP") else ">"
    start = dice.randrange(first, last)
    value = dice.choice((*EDGES, *_SIZES)) & (1 << 8 * size) - 1
    if start + size <= len(data):
        data[start : start + size] = struct.pack(order + {1: "B", 2: "H", 4: "I"}[size], value)


def _fields(name: str, data: bytearray, dice: random.Random) -> tuple[int, int]:
    """Return the offsets between which the header fields are."""
    if name != "JPEG":
        return _FIELDS[name]
    frame = max(data.find(marker) for marker in _JPEG_FRAMES)
    return (frame + 2, frame + 19) if frame > 0 and dice.random() < 0.7 else (2, 24)
