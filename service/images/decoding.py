"""Direct calls of the image decoders. `Image.open` would load 44 other readers and search a JPEG for more images.

An ordinary JPEG bypasses Pillow's reader, which would parse the header again in Python. Its bytes go to the decoder
of that reader, so the pixels are the same. A JPEG that is needed as an array is decoded by simplejpeg, which uses the
same library, libjpeg-turbo, and writes the array without a Pillow image.
"""

import io
import time

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, _imaging
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from service.images.header import ImageHeader

_MODES = {1: "L", 3: "RGB"}  # of JPEGs, by their components


class _MeteredPng(PngImageFile):
    """Pillow's PNG reader with a limit on the CPU time of its thread."""

    cpu_deadline = 0.0  # on the thread's CPU clock, in seconds

    def load_read(self, read_bytes: int) -> bytes:
        if time.thread_time() > self.cpu_deadline:
            raise TimeoutError
        return super().load_read(read_bytes)


def open_with_pillow(header: ImageHeader, cpu_deadline: float) -> ImageFile.ImageFile:
    """Return an image whose pixels are not decoded yet.

    Decoding a PNG raises TimeoutError at `cpu_deadline`, in seconds of `time.thread_time`. Raises ValueError if Pillow
    reads another size than the header walk, and any exception of Pillow.
    """
    file = io.BytesIO(header.content)
    image: ImageFile.ImageFile
    if header.format == "PNG":
        image = png = _MeteredPng(file)
        png.cpu_deadline = cpu_deadline
        png.decodermaxblock = 1 << 20
    else:
        image = JpegImageFile(file) if header.format == "JPEG" else WebPImageFile(file)
        # The whole file at once: with small pieces, a crafted file can make the decoder read bytes again and again.
        image.decodermaxblock = 1 << 30
    if image.size != (header.width, header.height):
        raise ValueError("the decoder reads another size than the header walk, so the limits were not checked")
    return image


def decode_plain_jpeg(header: ImageHeader, divisor: int = 1) -> Image.Image | None:
    """Return an RGB image of a grey or YCbCr JPEG, or None for any other file.

    Its sides are those of the file, divided by 1, 2, 4 or 8 and rounded up. Raises ValueError for a file that is broken
    or truncated.
    """
    mode = _MODES.get(header.bytes_per_pixel) if header.format == "JPEG" else None
    if mode is None:
        return None
    size = (-(-header.width // divisor), -(-header.height // divisor))
    pixels = _imaging.new(mode, size)
    decoder = _imaging.jpeg_decoder(mode, mode, "", divisor, 0)
    decoder.setimage(pixels, (0, 0, *size))
    consumed, error = decoder.decode(header.content)
    if consumed >= 0 or error:  # the decoder needs more bytes, or has failed
        raise ValueError("the JPEG is broken or truncated")
    image = Image.Image()._new(pixels)  # as Pillow's own methods create images
    return image if mode == "RGB" else image.convert("RGB")


def decode_to_array(header: ImageHeader, divisor: int = 1) -> NDArray[np.uint8] | None:
    """Return the pixels of `decode_plain_jpeg` as uint8 (height, width, 3), in less time.

    Returns None unless the file is a complete and valid JPEG of one scan. Pillow decides about all other files.
    """
    if header.format != "JPEG" or header.scans != 1 or header.bytes_per_pixel not in _MODES or header.is_truncated:
        return None
    width, height = -(-header.width // divisor), -(-header.height // divisor)
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
            header.content, "RGB", min_height=height, min_width=width, min_factor=divisor
        )
    except (ValueError, MemoryError):
        return None
    return pixels if pixels.shape == (height, width, 3) else None
