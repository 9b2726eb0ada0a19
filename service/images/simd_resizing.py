"""Bilinear reduction with the SIMD instructions of the processor, by the package cykooz-resizer where there is a wheel.

Two passes in Pillow's order, each rounded to 8 bits as Pillow's is, so that hardly any value differs from Pillow's, by
1 of 255. Only what a crop keeps is computed. The rest is left to Pillow: filters with negative lobes would enlarge a
difference, an enlargement has too few values to average it out, and a very large image would be copied.
"""

import math
import os
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Read at the first resize. The threads of an engine share the cores already, each with an image of its own.
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
    """Whether `reduce_part` takes this: a reduction in both directions, of up to 4 megapixels, whose result is inside.

    False wherever the package is not installed.
    """
    left, top, right, bottom = kept
    is_inside = 0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]
    is_reduction = size[0] <= box[2] - box[0] and size[1] <= box[3] - box[1]
    return rust is not None and is_inside and is_reduction and image[0] * image[1] <= _MAX_PIXELS


def reduce_part(image: Image.Image | Pixels, box: Box, size: Size, kept: Part) -> Pixels:
    """Resize `box` of an RGB image to `size`, and return `kept` of the result, uint8 (height, width, 3).

    Raises ValueError where the package is not installed.
    """
    if (library := rust) is None:
        raise ValueError("cykooz-resizer is not installed; install it, or ask can_reduce first")
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

    Of the image, the pixels from `first` to `last` are needed; the box from `low` to `high`, counted from `first`,
    becomes `length` pixels.
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
    """Return a box of the library's image at another size, which differs in one direction."""
    result = library.Image(*size, _RGB, None)
    options = library.RustResizeOptions().set_resize_alg(_CONVOLUTION, _BILINEAR, _UNUSED)
    options = options.set_crop_box(box[0], box[1], box[2] - box[0], box[3] - box[1])
    library.RustResizer().resize(image, result, options)  # a resizer holds a lock, so each has its own
    return result


def _is_vertical_first(image: Size, size: Size) -> bool:
    """Whether Pillow 13 changes the height of an image first: it does where that saves most."""
    return size[1] < image[1] and image[1] - size[1] > 2 * (image[0] - size[0])
