"""Decoding to an upright RGB image, with transparency composited on white."""

import functools
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops

from service.errors import BadImage, out_of_memory
from service.images.decoding import decode_plain_jpeg, decode_plain_png, open_with_pillow
from service.images.file_types import LINE_ENDS_LOST, has_lost_line_ends
from service.images.header import ImageHeader
from service.images.limits import ImageLimits
from service.images.truncated_jpeg import with_end_marker

# EXIF 2.32, tag 0x0112: the transformation that shows the stored image upright.
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_GREY_STEP: dict[object, int] = {"L;2": 85, "L;4": 17}  # between two adjacent grey levels after decoding to 0..255


def decode_rgb(header: ImageHeader, limits: ImageLimits, divisor: int) -> Image.Image:
    """Decode an image within the limits; a JPEG that lacks only its end is accepted.

    Raises BadImage, or Overloaded if the system has no memory left.
    """
    if header.is_truncated:
        content = with_end_marker(header.content)
        if content is None:
            raise _broken(header)
        header = replace(header, content=content)
    try:
        image = _to_rgb(header, limits, divisor)
        if header.orientation in _UPRIGHT:
            image = image.transpose(_UPRIGHT[header.orientation])
    except MemoryError:
        raise out_of_memory() from None
    except TimeoutError:
        raise BadImage(f"The {_name(header)} image takes too long to decompress; save it again.") from None
    except Exception:  # decoders have no closed list of failures; their messages may contain addresses and paths
        raise _broken(header) from None
    return image


def _broken(header: ImageHeader) -> BadImage:
    if has_lost_line_ends(header.content):
        return BadImage(LINE_ENDS_LOST)
    return BadImage(f"The {_name(header)} image is broken or truncated and cannot be decoded.")


def _name(header: ImageHeader) -> str:
    return "WebP" if header.format == "WEBP" else header.format


def _to_rgb(header: ImageHeader, limits: ImageLimits, divisor: int) -> Image.Image:
    if (plain := decode_plain_jpeg(header, divisor) or decode_plain_png(header)) is not None:
        return plain
    cpu_deadline = time.thread_time() + limits.max_png_cpu_s
    image: Image.Image = (file := open_with_pillow(header, cpu_deadline))
    if divisor > 1:
        file.draft(None, (header.width // divisor, header.height // divisor))
    layout = file.tile[0].args if file.tile else None  # as stored: "L;2" is grey of 2 bits a pixel
    image.load()
    transparency = image.info.get("transparency")
    if image.mode == "I;16":
        return _sixteen_bit_grey_to_rgb(image, transparency)
    if transparency is not None and image.mode in ("1", "L", "RGB"):
        low_bytes = _low_bytes(header, cpu_deadline) if layout == "RGB;16B" else None
        return _key_colour_on_white(image, low_bytes, np.atleast_1d(transparency) * _GREY_STEP.get(layout, 1))
    if image.mode in ("RGBA", "LA") or transparency is not None:
        layer = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def _sixteen_bit_grey_to_rgb(image: Image.Image, key: int | None) -> Image.Image:
    """Keep the high byte, as the PNG decoder does for 16-bit colour; Pillow's conversion would clip to white."""
    values = np.asarray(image)
    grey = (values >> 8).astype(np.uint8)
    if key is not None:
        grey[values == key] = 255
    return Image.fromarray(grey).convert("RGB")


def _key_colour_on_white(image: Image.Image, low_bytes: Image.Image | None, key: NDArray[np.int_]) -> Image.Image:
    """Replace a PNG's transparent colour by white, comparing all bits as the standard requires (Pillow does not)."""
    is_key = _where(image.convert("L") if image.mode == "1" else image, key if low_bytes is None else key >> 8)
    if low_bytes is not None:
        is_key = ImageChops.darker(is_key, _where(low_bytes, key & 255))
    on_white = image.convert("RGB")
    on_white.paste("white", mask=is_key)
    return on_white


def _where(image: Image.Image, colour: NDArray[np.int_]) -> Image.Image:
    """Return a mask that is 255 where the image has the colour."""
    table = [255 * (value == part) for part in colour.tolist() for value in range(256)]
    return functools.reduce(ImageChops.darker, image.point(table).split())


def _low_bytes(header: ImageHeader, cpu_deadline: float) -> Image.Image:
    image = open_with_pillow(header, cpu_deadline)
    image.tile = [image.tile[0]._replace(args="RGB;16L")]  # the other byte order keeps the low byte
    image.load()
    return image
