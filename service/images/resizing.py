"""Resize and crop as the field's reference pipelines do, to the pixel that their roundings give.

Pillow is the reference. Where cykooz-resizer is installed it takes over what it can do within 1 of 255 of Pillow's
values (`simd_resize.py`). What stores pixels, or measures with them, records the name of the resizer.
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

# A strip of 12,000 by 1 pixels, resized whole to a shorter side of 224, would be 2.7 million pixels long.
MAX_ASPECT_RATIO_RESIZED_WHOLE = 16


def part_seen(width: float, height: float, shorter_side: int, crop: tuple[int, int]) -> Box:
    """Return the part of an image, in its pixels, that `resize_and_crop` keeps."""
    new_width, new_height, left, top = _layout(width, height, shorter_side, crop)
    across, down = width / new_width, height / new_height
    return left * across, top * down, (left + crop[1]) * across, (top + crop[0]) * down


def _layout(width: float, height: float, shorter_side: int, crop: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the whole image's width and height once resized, and where in it the crop begins: left, top."""
    if width <= height:
        new_width, new_height = shorter_side, int(shorter_side * height / width)
    else:
        new_width, new_height = int(shorter_side * width / height), shorter_side
    return new_width, new_height, round((new_width - crop[1]) / 2), round((new_height - crop[0]) / 2)


def crop_only(width: int, height: int, shorter_side: int, crop: tuple[int, int]) -> tuple[int, int] | None:
    """Return where in an image `resize_and_crop` would cut, left and top, if it would do no more than that."""
    new_width, new_height, left, top = _layout(width, height, shorter_side, crop)
    is_strip = max(width, height) > MAX_ASPECT_RATIO_RESIZED_WHOLE * min(width, height)
    if (new_width, new_height) != (width, height) or is_strip or min(left, top) < 0:
        return None
    return left, top


def installed_resizers() -> tuple[Resizer, ...]:
    """Return the names of the resizers that this installation has, the usual one first."""
    return (PILLOW,) if simd_resize.rust is None else (SIMD, PILLOW)


def usual_resizer() -> Resizer:
    """Return the name of the resizer that is used where none is named."""
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
    """Resize so that the shorter side has `shorter_side` pixels, cut out the centre; uint8 (height, width, 3).

    `image` is RGB, or its pixels (height, width, 3); `box` is the part of it to take, default all. Sizes and offsets
    are rounded as torchvision's Resize and CenterCrop round them. Without `resizer` the usual one is used.
    """
    steps = _steps(size_of(image), box, shorter_side, crop)
    return _resized(image, steps, interpolation, resizer or usual_resizer())


def resize_box(image: Image.Image, box: Box, size: Size, resizer: Resizer) -> Pixels:
    """Return a part of an RGB image resized to this width and height, bilinear; uint8 (height, width, 3)."""
    return _resized(image, _Steps(box, size, (0, 0, *size)), "bilinear", resizer)


@dataclass(frozen=True, slots=True)
class _Steps:
    """Take `box` of an image, resize it to `size`, keep a part of the result."""

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
