"""Resizing and cropping with the sizes, offsets and roundings of torchvision's Resize and CenterCrop.

Pillow is the reference. If cykooz-resizer is installed, it is used where its values differ from Pillow's by at most 1
of 255 (`simd_resizing.py`). Callers that store pixels or measurements record the name of the resizer.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.images import simd_resizing as simd_resize
from service.images.simd_resizing import Part, Size, can_reduce, reduce_part, size_of

Resizer = Literal["pillow", "cykooz-resizer"]
PILLOW: Resizer = "pillow"
SIMD: Resizer = "cykooz-resizer"

Pixels = NDArray[np.uint8]
Box = tuple[float, float, float, float]  # left, top, right and bottom, in pixels

_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
INTERPOLATIONS = tuple(_INTERPOLATIONS)

# The whole of a strip of 12,000 by 1 pixels, resized to a shorter side of 224, would be 2.7 million pixels long.
MAX_ASPECT_RATIO_RESIZED_WHOLE = 16


def part_seen(width: float, height: float, shorter_side: int, crop: tuple[int, int]) -> Box:
    """Return the part of an image that `resize_and_crop` keeps, in pixels of the image."""
    new_width, new_height, left, top = _layout(width, height, shorter_side, crop)
    across, down = width / new_width, height / new_height
    return left * across, top * down, (left + crop[1]) * across, (top + crop[0]) * down


def _layout(width: float, height: float, shorter_side: int, crop: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the resized image's width and height, and the left and top edge of the crop in it."""
    if width <= height:
        new_width, new_height = shorter_side, int(shorter_side * height / width)
    else:
        new_width, new_height = int(shorter_side * width / height), shorter_side
    return new_width, new_height, round((new_width - crop[1]) / 2), round((new_height - crop[0]) / 2)


def crop_only(width: int, height: int, shorter_side: int, crop: tuple[int, int]) -> tuple[int, int] | None:
    """Return the left and top edge of the crop if `resize_and_crop` would not change the size, else None."""
    new_width, new_height, left, top = _layout(width, height, shorter_side, crop)
    is_strip = max(width, height) > MAX_ASPECT_RATIO_RESIZED_WHOLE * min(width, height)
    if (new_width, new_height) != (width, height) or is_strip or min(left, top) < 0:
        return None
    return left, top


def installed_resizers() -> tuple[Resizer, ...]:
    """Return the names of the installed resizers, the default first."""
    return (PILLOW,) if simd_resize.rust is None else (SIMD, PILLOW)


def usual_resizer() -> Resizer:
    """Return the name of the default resizer."""
    return installed_resizers()[0]


def resize_and_crop(
    image: Image.Image | Pixels,
    shorter_side: int,
    crop: tuple[int, int],
    interpolation: str = "bilinear",
    *,
    box: Box | None = None,
    resizer: Resizer | None = None,
) -> Pixels:
    """Resize an image to `shorter_side` and crop its centre; return uint8 (height, width, 3).

    `image` is an RGB image or uint8 pixels (height, width, 3). `box` selects a part of it, by default all. Sizes and
    offsets are rounded as in torchvision's Resize and CenterCrop. Without `resizer` the default one is used.
    """
    steps = _steps(size_of(image), box, shorter_side, crop)
    return _resized(image, steps, interpolation, resizer or usual_resizer())


def resize_box(image: Image.Image, box: Box, size: Size, resizer: Resizer) -> Pixels:
    """Return a part of an RGB image, resized bilinearly to (width, height) `size`, as uint8 (height, width, 3)."""
    return _resized(image, _Steps(box, size, (0, 0, *size)), "bilinear", resizer)


@dataclass(frozen=True, slots=True)
class _Steps:
    """The steps of a resize: select `box` of an image, resize it to `size`, and crop the result to `kept`."""

    box: Box
    size: Size
    kept: Part


def _steps(image: Size, box: Box | None, shorter_side: int, crop: tuple[int, int]) -> _Steps:
    box = box or (0.0, 0.0, float(image[0]), float(image[1]))
    width, height = box[2] - box[0], box[3] - box[1]
    if max(width, height) > MAX_ASPECT_RATIO_RESIZED_WHOLE * min(width, height):
        seen = part_seen(width, height, shorter_side, crop)
        part = (box[0] + seen[0], box[1] + seen[1], min(box[0] + seen[2], box[2]), min(box[1] + seen[3], box[3]))
        return _Steps(part, (crop[1], crop[0]), (0, 0, crop[1], crop[0]))
    new_width, new_height, left, top = _layout(width, height, shorter_side, crop)
    return _Steps(box, (new_width, new_height), (left, top, left + crop[1], top + crop[0]))


def _resized(image: Image.Image | Pixels, steps: _Steps, interpolation: str, resizer: Resizer) -> Pixels:
    is_simd = resizer == SIMD and interpolation == "bilinear"
    if is_simd and can_reduce(size_of(image), steps.box, steps.size, steps.kept):
        return reduce_part(image, steps.box, steps.size, steps.kept)
    return _by_pillow(image if isinstance(image, Image.Image) else Image.fromarray(image), steps, interpolation)


def _by_pillow(image: Image.Image, steps: _Steps, interpolation: str) -> Pixels:
    if steps.box != (0, 0, *image.size) or steps.size != image.size:
        image = image.resize(steps.size, _INTERPOLATIONS[interpolation], box=steps.box)
    if steps.kept != (0, 0, *steps.size):
        image = image.crop(steps.kept)
    return np.array(image)
