"""Bilinear reduction with SIMD instructions by the optional package cykooz-resizer.

The two passes have Pillow's order and are each rounded to 8 bits like Pillow's, so that few values differ, by 1 of 255.
Only the cropped part is computed. Pillow does all other resizes: filters with negative lobes would amplify a
difference, an enlargement averages too few values, and a very large image would be copied.
"""

import math
import os
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Read at the first resize. The engine's threads already use all cores, each for another image.
os.environ.setdefault("RAYON_NUM_THREADS", "1")
try:
    from cykooz_resizer import rust_lib
except ImportError:  # no wheel for this platform
    rust_lib = None
rust: ModuleType | None = rust_lib

Pixels = NDArray[np.uint8]
Size = tuple[int, int]  # width, height
Box = tuple[float, float, float, float]  # left, top, right and bottom, in pixels
Part = tuple[int, int, int, int]  # the same, in whole pixels

_RGB, _CONVOLUTION, _BILINEAR, _UNUSED = 3, 2, 2, 2  # the library's numbers
_MAX_PIXELS = 4_000_000


def can_reduce(image: Size, box: Box, size: Size, kept: Part) -> bool:
    """Return whether `reduce_part` supports a resize: a reduction in both directions, of up to 4 megapixels.

    `kept` has to be within the result. Returns False if the package is not installed.
    """
    left, top, right, bottom = kept
    is_inside = 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
    is_reduction = size[0] <= box[2] - box[0] and size[1] <= box[3] - box[1]
    return rust is not None and is_inside and is_reduction and image[0] * image[1] <= _MAX_PIXELS


def reduce_part(image: Image.Image | Pixels, box: Box, size: Size, kept: Part) -> Pixels:
    """Resize `box` of an RGB image to `size`, and return the part `kept` of the result as uint8 (height, width, 3).

    Raises ValueError if the package is not installed.
    """
    if (library := rust) is None:
        raise ValueError("cykooz-resizer is not installed; install it, or check can_reduce first")
    width, height = size_of(image)
    across = _Axis(box[0], box[2], width, size[0], kept[0], kept[2])
    down = _Axis(box[1], box[3], height, size[1], kept[1], kept[3])
    columns, rows = across.last - across.first, down.last - down.first
    content = _content_of(image, (across.first, down.first, across.last, down.last))
    source, final = library.Image(columns, rows, _RGB, content), (across.length, down.length)
    if _is_vertical_first((width, height), size):
        half = _passed(library, source, (columns, down.length), (0, down.low, columns, down.high))
        result = _passed(library, half, final, (across.low, 0, across.high, down.length))
    else:
        half = _passed(library, source, (across.length, rows), (across.low, 0, across.high, rows))
        result = _passed(library, half, final, (0, down.low, across.length, down.high))
    return np.frombuffer(result.buffer(), np.uint8).reshape(down.length, across.length, 3).copy()


def size_of(image: Image.Image | Pixels) -> Size:
    """Return width and height of an image, or of pixels (height, width, 3)."""
    return image.size if isinstance(image, Image.Image) else (image.shape[1], image.shape[0])


class _Axis:
    """One direction of a resize.

    The input is the pixels from `first` to `last`. The box from `low` to `high`, relative to `first`, is resized to
    `length` pixels.
    """

    __slots__ = ("first", "high", "last", "length", "low")

    def __init__(self, start: float, end: float, pixels: int, new: int, first_kept: int, last_kept: int) -> None:
        scale = (end - start) / new
        low, high = start + first_kept * scale, min(start + last_kept * scale, float(pixels))
        margin = scale + 1  # how far the filter reaches, and a pixel for rounding
        self.first, self.last = max(0, math.floor(low - margin)), min(pixels, math.ceil(high + margin))
        self.low, self.high = low - self.first, high - self.first
        self.length = last_kept - first_kept


def _content_of(image: Image.Image | Pixels, part: Part) -> bytes:
    left, top, right, bottom = part
    if isinstance(image, Image.Image):
        return (image if part == (0, 0, *image.size) else image.crop(part)).tobytes()
    return image[top:bottom, left:right].tobytes()


def _passed(library: ModuleType, image: Any, size: Size, box: Box) -> Any:
    """Return a box of the library's image, resized in one direction."""
    result = library.Image(*size, _RGB, None)
    options = library.RustResizeOptions().set_resize_alg(_CONVOLUTION, _BILINEAR, _UNUSED)
    options = options.set_crop_box(box[0], box[1], box[2] - box[0], box[3] - box[1])
    library.RustResizer().resize(image, result, options)  # a resizer has a lock, so each call uses a new one
    return result


def _is_vertical_first(image: Size, size: Size) -> bool:
    """Return whether Pillow 13 resizes an image vertically first, which it does where that saves time."""
    return size[1] < image[1] and image[1] - size[1] > 2 * (image[0] - size[0])
