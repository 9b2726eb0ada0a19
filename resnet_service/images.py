"""The images that the package accepts, as the bytes of a file."""

import io
import os
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from resnet_service.results import ResnetError

# The bytes of a JPEG, PNG or WebP file; its path; an image of Pillow; uint8 pixels (h, w, 3) in RGB or (h, w) in gray.
ImageInput: TypeAlias = bytes | str | os.PathLike[str] | Image.Image | NDArray[np.uint8]

_FAST_COMPRESSION = 1
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")  # that a PNG keeps without loss


def image_bytes(image: ImageInput) -> bytes:
    """Return the bytes of an image file. Pixels become a PNG, which loses nothing.

    Raises ResnetError if a path cannot be read, TypeError or ValueError for anything that is no image.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return _read(image)
    if isinstance(image, Image.Image):
        return _as_png(image)
    if isinstance(image, np.ndarray):
        return _as_png(Image.fromarray(_checked(image)))
    raise TypeError(f"an image must be bytes, a path, a PIL image or a NumPy array, not {type(image).__name__}")


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ResnetError(f"{os.fspath(path)} cannot be read: {reason}", code="no_file") from None


def _checked(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    is_image = pixels.dtype == np.uint8 and (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in (3, 4)))
    if not is_image or not pixels.size:
        raise ValueError(f"an array must be uint8 (h, w, 3) or (h, w), not {pixels.dtype} {pixels.shape}")
    return pixels


def _as_png(image: Image.Image) -> bytes:
    """Return an image as displayed, upright by its EXIF orientation."""
    upright = ImageOps.exif_transpose(image)
    content = io.BytesIO()
    shown = upright if upright.mode in _MODES else upright.convert("RGB")
    shown.save(content, "PNG", compress_level=_FAST_COMPRESSION)
    return content.getvalue()
