"""Image bytes in, uint8 pixels out: the one piece of code that decodes images, in training and in serving.

The limits on hostile files are checked on the header, before the decoder allocates anything. The steps are those of
the field's reference pipelines: decode, turn upright, put transparency on white, resize the shorter side with
antialiasing, cut out the centre. Scaling to floats and normalising is the model's own first layer.
"""

import functools
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from service.errors import BadImage
from service.images.decoding import decode_plain_jpeg, decode_to_array, open_with_pillow
from service.images.file_types import LINE_ENDS_LOST, has_lost_line_ends
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
from service.images.truncated_jpeg import with_an_end

__all__ = [
    "DEFAULT_LIMITS",
    "INTERPOLATIONS",
    "PILLOW",
    "Box",
    "ImageInfo",
    "ImageLimits",
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

# EXIF 2.32, tag 0x0112: what has to be done to show the stored image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDES_SWAPPED = frozenset((5, 6, 7, 8))
# Where the stored image's left and top edge end up.
_STORED_FROM_RIGHT, _STORED_FROM_BOTTOM = frozenset((2, 3, 6, 7)), frozenset((3, 4, 7, 8))

_GREY_STEP: dict[object, int] = {"L;2": 85, "L;4": 17}  # between two neighbouring greys once decoded to 0..255

# Decoding a JPEG at a reduced scale is for large images that are not to be made tiny; the rest stays exact.
_MAX_PIXELS_DECODED_WHOLE = 4_000_000
_MIN_SIDE_OF_REDUCED = 128
_REDUCED_TO = 2.25  # times the target's side at least: at 2.16 rich textures differed by 0.55 levels, at 2.9 by 0.29


@dataclass(slots=True)
class ImageInfo:
    """What the client sent: container format and the size in pixels as displayed, so after the orientation."""

    format: str
    width: int
    height: int


@dataclass(slots=True)
class TruncatedImageInfo(ImageInfo):
    """As ImageInfo, of a JPEG whose end is missing."""

    truncated: bool = True


def image_to_pixels(
    data: bytes,
    *,
    shorter_side: int,
    crop: tuple[int, int],
    interpolation: str = "bilinear",
    limits: ImageLimits = DEFAULT_LIMITS,
    resizer: Resizer | None = None,
) -> tuple[Pixels, ImageInfo]:
    """Return the pixels the network sees, uint8 (crop height, crop width, 3) in RGB, and what the image was.

    Without `resizer` the usual one of this installation is used. Raises NotAnImage for anything but JPEG, PNG and WebP
    by its bytes, BadImage for what cannot be decoded or breaks a limit.
    """
    header = read_header(data)
    return header_to_pixels(
        header, shorter_side=shorter_side, crop=crop, interpolation=interpolation, limits=limits, resizer=resizer
    )


def header_to_pixels(
    header: ImageHeader,
    *,
    shorter_side: int,
    crop: tuple[int, int],
    interpolation: str = "bilinear",
    limits: ImageLimits = DEFAULT_LIMITS,
    resizer: Resizer | None = None,
) -> tuple[Pixels, ImageInfo]:
    """As `image_to_pixels`, when the header was read already."""
    divisor = _divisor(header, shorter_side, interpolation, limits)
    check_limits(header, limits, divisor)
    resizer = resizer or usual_resizer()
    pixels = _from_array(header, divisor, shorter_side, crop, interpolation, resizer)
    if pixels is not None:
        return pixels, _info(header)
    image = _reduced(header, limits, divisor)
    pixels = resize_and_crop(image.image, shorter_side, crop, interpolation, box=image.box, resizer=resizer)
    return pixels, image.info


def _from_array(
    header: ImageHeader, divisor: int, shorter_side: int, crop: tuple[int, int], interpolation: str, resizer: Resizer
) -> Pixels | None:
    """Return the pixels of an ordinary upright JPEG that needs no image of Pillow's in between, else None."""
    if header.orientation != 1:
        return None
    corner = crop_only(header.width, header.height, shorter_side, crop)
    if corner is None and (resizer != SIMD or interpolation != "bilinear"):
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
    """An RGB image, perhaps at a part of its size, the box of it that the image covers, and what the image was."""

    image: Image.Image
    box: Box
    info: ImageInfo

    def resized(self, size: tuple[int, int], box: Box, resizer: Resizer | None = None) -> Pixels:
        """Return a part of the image, in pixels of its whole size, resized to uint8 (height, width, 3)."""
        left, top, right, bottom = self.box
        across, down = (right - left) / self.info.width, (bottom - top) / self.info.height
        inside = (left + box[0] * across, top + box[1] * down, left + box[2] * across, top + box[3] * down)
        within = (*inside[:2], min(inside[2], right), min(inside[3], bottom))  # rounding may lead beyond the edge
        return resize_box(self.image, within, (size[1], size[0]), resizer or usual_resizer())


def decode_reduced(data: bytes, shorter_side: int) -> Reduced:
    """Return an image; a large JPEG is only as large as needed for a resize to that shorter side.

    Raises as `image_to_pixels` does.
    """
    header = read_header(data)
    divisor = _divisor(header, shorter_side, "bilinear", DEFAULT_LIMITS)
    check_limits(header, DEFAULT_LIMITS, divisor)
    return _reduced(header, DEFAULT_LIMITS, divisor)


def decode_to_show(data: bytes, longer_side: int, limits: ImageLimits = DEFAULT_LIMITS) -> Reduced:
    """Return an image to be shown at that size; a JPEG is decoded at the smallest scale that is not below it.

    Raises as `image_to_pixels` does.
    """
    header = read_header(data)
    shortest, longest = sorted((header.width, header.height))
    divisors = (8, 4, 2) if header.format == "JPEG" else ()
    wanted = next((divisor for divisor in divisors if longest >= divisor * longer_side and shortest >= divisor), 1)
    divisor = max(wanted, _divisor(header, 0, "bilinear", limits))
    check_limits(header, limits, divisor)
    return _reduced(header, limits, divisor)


def _reduced(header: ImageHeader, limits: ImageLimits, divisor: int) -> Reduced:
    image, info = _decode(header, limits, divisor), _info(header)
    return Reduced(image, _covered(image, info, header.orientation, divisor), info)


def decode(data: bytes, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[Image.Image, ImageInfo]:
    """Return the image as an RGB image, upright and on white, and what it was. Raises as `image_to_pixels` does.

    A JPEG above the limits is decoded at the largest scale that is within them.
    """
    header = read_header(data)
    divisor = _divisor(header, 0, "bilinear", limits)
    check_limits(header, limits, divisor)
    return _decode(header, limits, divisor), _info(header)


def _divisor(header: ImageHeader, shorter_side: int, interpolation: str, limits: ImageLimits) -> int:
    """Return by how much each side of an image may be divided while it is decoded: 1, 2, 4 or 8.

    A JPEG decoder makes smaller images of large ones at a fraction of the work, by leaving out the higher
    frequencies of each block. More than twice the target's size is left for the resize, which decides on the result.
    Images above the limits are divided for tiny targets, too, if that brings them within the limits.
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
    """Return the part of a reduced image that the whole one covers: not all, where its sides do not divide evenly."""
    width, height = info.width / divisor, info.height / divisor
    left = image.width - width if orientation in _STORED_FROM_RIGHT else 0.0
    top = image.height - height if orientation in _STORED_FROM_BOTTOM else 0.0
    return left, top, left + width, top + height


def _decode(header: ImageHeader, limits: ImageLimits, divisor: int) -> Image.Image:
    """Decode an image whose header is within the limits, also if hardly more than its end is missing."""
    if header.is_truncated:
        content = with_an_end(header.content)
        if content is None:
            raise _broken(header)
        header = replace(header, content=content)
    try:
        image = _to_rgb(header, limits, divisor)
        if header.orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[header.orientation])
    except MemoryError:
        raise BadImage("The image needs more memory than there is.") from None
    except TimeoutError:
        raise BadImage(f"The {_name(header)} image takes too much work to unpack; save it again.") from None
    except Exception:  # the decoder has no closed list of failures; its own words may hold addresses and paths
        raise _broken(header) from None
    return image


def _broken(header: ImageHeader) -> BadImage:
    if has_lost_line_ends(header.content):
        return BadImage(LINE_ENDS_LOST)
    return BadImage(f"The {_name(header)} image is broken or cut off and cannot be decoded.")


def _name(header: ImageHeader) -> str:
    return "WebP" if header.format == "WEBP" else header.format


def _to_rgb(header: ImageHeader, limits: ImageLimits, divisor: int) -> Image.Image:
    if (plain := decode_plain_jpeg(header, divisor)) is not None:
        return plain
    gives_up_at = time.thread_time() + limits.max_png_cpu_s
    image: Image.Image = (file := open_with_pillow(header, gives_up_at))
    if divisor > 1:
        file.draft(None, (header.width // divisor, header.height // divisor))
    layout = file.tile[0].args if file.tile else None  # as stored: "L;2" is grey of 2 bits a pixel
    image.load()
    transparency = image.info.get("transparency")
    if image.mode == "I;16":
        return _sixteen_bit_grey_to_rgb(image, transparency)
    if transparency is not None and image.mode in ("1", "L", "RGB"):
        low_bytes = _low_bytes(header, gives_up_at) if layout == "RGB;16B" else None
        return _key_colour_on_white(image, low_bytes, np.atleast_1d(transparency) * _GREY_STEP.get(layout, 1))
    if image.mode in ("RGBA", "LA") or transparency is not None:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_bit_grey_to_rgb(image: Image.Image, key: int | None) -> Image.Image:
    """Keep the high byte, as the PNG decoder does for 16-bit colour; Pillow's own conversion clips to white."""
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    if key is not None:
        grey[values == key] = 255
    return Image.fromarray(grey).convert("RGB")


def _key_colour_on_white(image: Image.Image, low_bytes: Image.Image | None, key: NDArray[np.int_]) -> Image.Image:
    """Make a PNG's one transparent colour white, comparing every bit as the standard asks (Pillow does not)."""
    is_key = _where(image.convert("L") if image.mode == "1" else image, key if low_bytes is None else key >> 8)
    if low_bytes is not None:
        is_key = ImageChops.darker(is_key, _where(low_bytes, key & 255))
    on_white = image.convert("RGB")
    on_white.paste("white", mask=is_key)
    return on_white


def _where(image: Image.Image, colour: NDArray[np.int_]) -> Image.Image:
    """Return a mask of 255 where the image has that colour."""
    table = [255 * (value == part) for part in colour.tolist() for value in range(256)]
    return functools.reduce(ImageChops.darker, image.point(table).split())


def _low_bytes(header: ImageHeader, gives_up_at: float) -> Image.Image:
    image = open_with_pillow(header, gives_up_at)
    image.tile = [image.tile[0]._replace(args="RGB;16L")]  # the other byte order, so the other byte
    image.load()
    return image
