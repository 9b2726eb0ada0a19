"""Image bytes in, uint8 pixels out: preprocessing for both training and serving.

The limits on hostile files are checked on the header, before the decoder allocates memory. The steps are those of the
reference pipelines: decode, apply the EXIF orientation, composite transparency on white, resize the shorter side with
antialiasing, crop the centre. The model's first layer scales to floats and normalizes.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from service.images.decoding import decode_to_array
from service.images.header import ImageHeader, read_header
from service.images.limits import DEFAULT_LIMITS, ImageLimits, check_limits, fits
from service.images.resizing import (
    INTERPOLATIONS,
    MAX_ASPECT_RATIO_RESIZED_WHOLE,
    PILLOW,
    SIMD,
    Box,
    Pixels,
    Resizer,
    crop_only,
    installed_resizers,
    resize_and_crop,
    resize_box,
    usual_resizer,
)
from service.images.rgb_decoding import decode_rgb

__all__ = [
    "DEFAULT_LIMITS",
    "INTERPOLATIONS",
    "PILLOW",
    "Box",
    "ImageInfo",
    "ImageLimits",
    "PixelSteps",
    "Pixels",
    "Reduced",
    "Resizer",
    "TruncatedImageInfo",
    "decode",
    "decode_reduced",
    "decode_to_show",
    "header_to_pixels",
    "image_to_pixels",
    "installed_resizers",
    "resize_and_crop",
    "usual_resizer",
]

_SIDES_SWAPPED = frozenset((5, 6, 7, 8))
# The orientations in which the stored left edge is shown on the right, and the stored top edge at the bottom.
_STORED_FROM_RIGHT, _STORED_FROM_BOTTOM = frozenset((2, 3, 6, 7)), frozenset((3, 4, 7, 8))

# A JPEG is decoded at a reduced scale only if it is large and its target is not tiny; all others are decoded exactly.
_MAX_PIXELS_DECODED_WHOLE = 4_000_000
_MIN_SIDE_OF_REDUCED = 128
_REDUCED_TO = 2.25  # times the target's side at least: at 2.16 rich textures differed by 0.55 levels, at 2.9 by 0.29


@dataclass(slots=True)
class ImageInfo:
    """The file format of an image, and its displayed size in pixels (after the orientation is applied)."""

    format: str
    width: int
    height: int


@dataclass(slots=True)
class TruncatedImageInfo(ImageInfo):
    """The ImageInfo of a JPEG whose last rows or scans are missing."""

    truncated: bool = True


@dataclass(frozen=True, slots=True)
class PixelSteps:
    """The steps from an image to the input of a model."""

    shorter_side: int  # after the resize, in pixels
    crop: tuple[int, int]  # height, width
    interpolation: str = "bilinear"
    limits: ImageLimits = DEFAULT_LIMITS
    resizer: Resizer | None = None  # None: the default one


def image_to_pixels(
    data: bytes,
    *,
    shorter_side: int,
    crop: tuple[int, int],
    interpolation: str = "bilinear",
    limits: ImageLimits = DEFAULT_LIMITS,
    resizer: Resizer | None = None,
) -> tuple[Pixels, ImageInfo]:
    """Return the model's input pixels, RGB uint8 (crop height, crop width, 3), and the image's properties.

    `crop` is (height, width). Without `resizer` the default one is used. Raises NotAnImage for a file that is not JPEG,
    PNG or WebP by its bytes, and BadImage for an image that cannot be decoded or exceeds a limit.
    """
    return header_to_pixels(read_header(data), PixelSteps(shorter_side, crop, interpolation, limits, resizer))


def header_to_pixels(header: ImageHeader, steps: PixelSteps) -> tuple[Pixels, ImageInfo]:
    """Return the pixels and properties of an image whose header is already read. Raises BadImage."""
    shorter_side, crop, limits = steps.shorter_side, steps.crop, steps.limits
    divisor = _divisor(header, shorter_side, steps.interpolation, limits)
    check_limits(header, limits, divisor)
    resizer = steps.resizer or usual_resizer()
    pixels = _from_array(header, divisor, steps, resizer)
    if pixels is not None:
        return pixels, _info(header)
    image = _reduced(header, limits, divisor)
    pixels = resize_and_crop(image.image, shorter_side, crop, steps.interpolation, box=image.box, resizer=resizer)
    return pixels, image.info


def _from_array(header: ImageHeader, divisor: int, steps: PixelSteps, resizer: Resizer) -> Pixels | None:
    """Return the pixels of an ordinary upright JPEG that is decoded to an array directly, else None."""
    if header.orientation != 1:
        return None
    shorter_side, crop = steps.shorter_side, steps.crop
    corner = crop_only(header.width, header.height, shorter_side, crop)
    if corner is None and (resizer != SIMD or steps.interpolation != "bilinear"):
        return None
    whole = decode_to_array(header, divisor)
    if whole is None:
        return None
    if corner is not None:
        left, top = corner
        return np.ascontiguousarray(whole[top : top + crop[0], left : left + crop[1]])
    box = (0.0, 0.0, header.width / divisor, header.height / divisor)
    return resize_and_crop(whole, shorter_side, crop, box=box, resizer=resizer)


@dataclass(slots=True)
class Reduced:
    """An RGB image at a reduced scale (or full scale), the box in it that the original covers, and its properties."""

    image: Image.Image
    box: Box
    info: ImageInfo

    def resized(self, size: tuple[int, int], box: Box, resizer: Resizer | None = None) -> Pixels:
        """Return a part of the image, resized to (height, width) `size`, as uint8 (height, width, 3).

        `box` is in pixels of the original.
        """
        left, top, right, bottom = self.box
        across, down = (right - left) / self.info.width, (bottom - top) / self.info.height
        inside = (left + box[0] * across, top + box[1] * down, left + box[2] * across, top + box[3] * down)
        within = (*inside[:2], min(inside[2], right), min(inside[3], bottom))  # rounding may exceed the edge
        return resize_box(self.image, within, (size[1], size[0]), resizer or usual_resizer())


def decode_reduced(data: bytes, shorter_side: int) -> Reduced:
    """Return an image for a resize to `shorter_side`; a large JPEG is decoded at a reduced scale.

    Raises NotAnImage, BadImage.
    """
    header = read_header(data)
    divisor = _divisor(header, shorter_side, "bilinear", DEFAULT_LIMITS)
    check_limits(header, DEFAULT_LIMITS, divisor)
    return _reduced(header, DEFAULT_LIMITS, divisor)


def decode_to_show(data: bytes, longer_side: int, limits: ImageLimits = DEFAULT_LIMITS) -> Reduced:
    """Return an image for display; a JPEG has the smallest scale whose longer side is at least `longer_side` pixels.

    Raises NotAnImage, BadImage.
    """
    header = read_header(data)
    shortest, longest = sorted((header.width, header.height))
    divisors = (8, 4, 2) if header.format == "JPEG" else ()
    preferred = next((divisor for divisor in divisors if longest >= divisor * longer_side and shortest >= divisor), 1)
    divisor = max(preferred, _divisor(header, 0, "bilinear", limits))
    check_limits(header, limits, divisor)
    return _reduced(header, limits, divisor)


def _reduced(header: ImageHeader, limits: ImageLimits, divisor: int) -> Reduced:
    image, info = decode_rgb(header, limits, divisor), _info(header)
    return Reduced(image, _covered(image, info, header.orientation, divisor), info)


def decode(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[Image.Image, ImageInfo]:
    """Return an RGB image, upright and composited on white, and its properties. Raises NotAnImage, BadImage.

    A JPEG above the limits is decoded at the largest scale that is within them.
    """
    header = read_header(data)
    divisor = _divisor(header, 0, "bilinear", limits)
    check_limits(header, limits, divisor)
    return decode_rgb(header, limits, divisor), _info(header)


def _divisor(header: ImageHeader, shorter_side: int, interpolation: str, limits: ImageLimits) -> int:
    """Return the divisor of each side with which an image is decoded: 1, 2, 4 or 8.

    A JPEG decoder can produce a smaller image in a fraction of the time by omitting the higher frequencies of each
    block. The decoded image has more than twice the target's size, so that the resize determines the result. Images
    above the limits are divided for tiny targets as well, if that brings them within the limits.
    """
    if (
        header.width * header.height <= _MAX_PIXELS_DECODED_WHOLE
        or header.format != "JPEG"
        or interpolation == "nearest"
    ):
        return 1
    shortest, longest = sorted((header.width, header.height))
    allowed = [divisor for divisor in (8, 4, 2) if shortest >= _REDUCED_TO * shorter_side * divisor]
    is_strip = longest > MAX_ASPECT_RATIO_RESIZED_WHOLE * shortest
    if shorter_side >= _MIN_SIDE_OF_REDUCED and not is_strip:
        return allowed[0] if allowed else 1
    return next((divisor for divisor in (1, *reversed(allowed)) if fits(header, limits, divisor)), 1)


def _info(header: ImageHeader) -> ImageInfo:
    width, height = header.width, header.height
    kind = TruncatedImageInfo if header.is_truncated else ImageInfo
    return kind(header.format, *((height, width) if header.orientation in _SIDES_SWAPPED else (width, height)))


def _covered(image: Image.Image, info: ImageInfo, orientation: int, divisor: int) -> Box:
    """Return the box of a reduced image that the original covers; not all if its sides do not divide evenly."""
    width, height = info.width / divisor, info.height / divisor
    left = image.width - width if orientation in _STORED_FROM_RIGHT else 0.0
    top = image.height - height if orientation in _STORED_FROM_BOTTOM else 0.0
    return left, top, left + width, top + height
