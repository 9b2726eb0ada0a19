"""Resize and crop as the field's reference pipelines do, to the pixel that their roundings give."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    """Return the part of a picture, in its pixels, that `resize_and_crop` keeps."""
    new_width, new_height, left, top = _layout(width, height, shorter_side, crop)
    across, down = width / new_width, height / new_height
    return left * across, top * down, (left + crop[1]) * across, (top + crop[0]) * down


def _layout(width: float, height: float, shorter_side: int, crop: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return the whole picture's width and height once resized, and where in it the crop begins: left, top."""
    if width <= height:
        new_width, new_height = shorter_side, int(shorter_side * height / width)
    else:
        new_width, new_height = int(shorter_side * width / height), shorter_side
    return new_width, new_height, round((new_width - crop[1]) / 2), round((new_height - crop[0]) / 2)


def crop_alone(width: int, height: int, shorter_side: int, crop: tuple[int, int]) -> tuple[int, int] | None:
    """Return where in a picture `resize_and_crop` would cut, left and top, if it would do no more than that."""
    new_width, new_height, left, top = _layout(width, height, shorter_side, crop)
    is_strip = max(width, height) > MAX_ASPECT_RATIO_RESIZED_WHOLE * min(width, height)
    if (new_width, new_height) != (width, height) or is_strip or min(left, top) < 0:
        return None
    return left, top


def resize_and_crop(
    image: Image.Image,
    shorter_side: int,
    crop: tuple[int, int],
    interpolation: str = "bilinear",
    *,
    box: Box | None = None,
) -> Pixels:
    """Resize so that the shorter side has `shorter_side` pixels, cut out the centre; uint8 (height, width, 3).

    `box` is the part of the image to take, default all of it. Sizes and offsets are rounded as torchvision's Resize
    and CenterCrop round them.
    """
    whole = (0.0, 0.0, float(image.width), float(image.height))
    box = box or whole
    width, height = box[2] - box[0], box[3] - box[1]
    crop_height, crop_width = crop
    new_width, new_height, left, top = _layout(width, height, shorter_side, crop)
    resampling = _INTERPOLATIONS[interpolation]
    if max(width, height) > MAX_ASPECT_RATIO_RESIZED_WHOLE * min(width, height):
        seen = part_seen(width, height, shorter_side, crop)
        part = (box[0] + seen[0], box[1] + seen[1], min(box[0] + seen[2], box[2]), min(box[1] + seen[3], box[3]))
        return np.array(image.resize((crop_width, crop_height), resampling, box=part))
    if box != whole or (new_width, new_height) != image.size:
        image = image.resize((new_width, new_height), resampling, box=box)
    if (new_width, new_height) != (crop_width, crop_height):
        image = image.crop((left, top, left + crop_width, top + crop_height))
    return np.array(image)
