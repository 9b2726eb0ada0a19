"""Class activation maps as images, which show the evidence for a label.

A map (Zhou et al. 2016) is a coarse grid. The mean of its cells plus the class's bias is the class's logit. Negative
values, the evidence against the class, have heat 0; the largest value has heat 255.
"""

import io
import math
import struct
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.images.resizing import Box, Pixels

_OPACITY = 0.6  # of the hottest cell
# Heat → red, green, blue: dark blue over red to yellow, which also differ in brightness.
_HEATS = (0, 127.5, 255)
_COLOURS = ((40, 10, 120), (220, 50, 60), (255, 230, 60))
_OUTSIDE = 0.5  # brightness outside the crop that the model saw
_PNG_HEADER = (8, 6, 0, 0, 0)  # bits a sample, RGBA, deflate, the five filters, not interlaced


def _palette() -> NDArray[np.uint8]:
    """Return red, green, blue and opacity, uint8 (256, 4), of each level of heat."""
    levels = np.arange(256)
    colours = [np.interp(levels, _HEATS, channel) for channel in zip(*_COLOURS, strict=True)]
    return np.stack([*colours, _OPACITY * levels], axis=1).round().astype(np.uint8)


_PALETTE = _palette()
_RGB_PALETTE = _PALETTE[:, :3].tobytes()
_OPACITIES = _PALETTE[:, 3].tolist()
_DIMMED = [round(_OUTSIDE * level) for level in range(256)] * 3


def map_as_png(values: NDArray[np.float32]) -> bytes:
    """Return a map (h, w) as a PNG of w x h pixels, with the heat as colour and opacity.

    The PNG is encoded here, because Pillow takes ten times as long for so few pixels.
    """
    height, width = values.shape
    rows = np.zeros((height, 1 + 4 * width), np.uint8)  # each row begins with its filter type, 0 for none
    rows[:, 1:] = _PALETTE[_levels(values, values)].reshape(height, -1)
    header = struct.pack(">II5B", width, height, *_PNG_HEADER)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def overlay_as_png(pixels: Pixels, values: NDArray[np.float32], crop: Box) -> bytes:
    """Return an image, uint8 (H, W, 3), as a PNG with a map (h, w) over its part `crop`; the rest is darkened."""
    image = Image.fromarray(pixels)
    seen = _whole_pixels(crop, image.size)
    levels = Image.fromarray(_levels(_smooth(values, crop, seen), values))
    opacity = levels.point(_OPACITIES)
    levels.putpalette(_RGB_PALETTE)
    drawn = image.point(_DIMMED)
    drawn.paste(image.crop(seen), seen)
    drawn.paste(levels.convert("RGB"), seen, opacity)
    file = io.BytesIO()
    drawn.save(file, "PNG", compress_level=1)  # a fifth of the default level's time, for files of the same size
    return file.getvalue()


def _whole_pixels(crop: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the box of whole pixels that a crop of an image touches, at least 1 x 1; `size` is (width, height)."""
    left, top, right, bottom = (round(edge, 3) for edge in crop)  # a rounding error must not add a pixel
    first = max(0, math.floor(left)), max(0, math.floor(top))
    return *first, min(size[0], math.ceil(right)), min(size[1], math.ceil(bottom))


def _smooth(values: NDArray[np.float32], crop: Box, seen: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """Return the map of `crop`, interpolated at the pixels of `seen`."""
    (left, top, right, bottom), (height, width) = crop, values.shape
    across, down = width / (right - left), height / (bottom - top)
    box = ((seen[0] - left) * across, (seen[1] - top) * down, (seen[2] - left) * across, (seen[3] - top) * down)
    inside = (max(0.0, box[0]), max(0.0, box[1]), min(float(width), box[2]), min(float(height), box[3]))
    size = (seen[2] - seen[0], seen[3] - seen[1])
    grid = Image.fromarray(values.astype(np.float32))
    return np.asarray(grid.resize(size, Image.Resampling.BICUBIC, box=inside))


def _levels(values: NDArray[np.float32], whole: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return heat from 0 to 255, where 255 is the largest value of the whole map."""
    most = max(float(whole.max()), 1e-30)
    return (values.clip(0, most) / most * 255).round().astype(np.uint8)
