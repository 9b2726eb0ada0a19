"""Pillow's decoders, called directly: `Image.open` would load 44 other readers and look for more images in a JPEG.

An ordinary JPEG does not even meet Pillow's reader, which parses in Python what the header walk has read already: its
bytes go to the decoder that the reader would hand them to, so the pixels are the same. One that is wanted as it is, as
an array, needs no image of Pillow's in between; simplejpeg has the same decoder, libjpeg-turbo, and writes it at once.
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
    """Pillow's reader, which gives up once its thread has spent the CPU time it was given."""

    gives_up_at = 0.0  # of the thread's CPU clock

    def load_read(self, read_bytes: int) -> bytes:
        if time.thread_time() > self.gives_up_at:
            raise TimeoutError
        return super().load_read(read_bytes)


def open_with_pillow(header: ImageHeader, gives_up_at: float) -> ImageFile.ImageFile:
    """Return an image that is not decoded yet. A PNG raises TimeoutError at that time of the thread's CPU clock.

    Raises ValueError if Pillow sees another size than the header walk, and what Pillow raises.
    """
    file = io.BytesIO(header.content)
    image: ImageFile.ImageFile
    if header.format == "PNG":
        image = png = _MeteredPng(file)
        png.gives_up_at = gives_up_at
        png.decodermaxblock = 1 << 20
    else:
        image = JpegImageFile(file) if header.format == "JPEG" else WebPImageFile(file)
        # In one piece: fed in small ones, a decoder could be made to read the same bytes again for each of them.
        image.decodermaxblock = 1 << 30
    if image.size != (header.width, header.height):
        raise ValueError("the decoder sees another size than the header walk, so the limits were not checked")
    return image


def decode_plain_jpeg(header: ImageHeader, divisor: int = 1) -> Image.Image | None:
    """Return an RGB image, or None if the file is none of the ordinary kinds of JPEG: grey or colour.

    Its sides are those of the file, divided by 1, 2, 4 or 8. Raises ValueError for a file that is broken or cut off.
    """
    mode = _MODES.get(header.bytes_per_pixel) if header.format == "JPEG" else None
    if mode is None:
        return None
    size = (-(-header.width // divisor), -(-header.height // divisor))
    pixels = _imaging.new(mode, size)
    decoder = _imaging.jpeg_decoder(mode, mode, "", divisor, 0)
    decoder.setimage(pixels, (0, 0, *size))
    consumed, error = decoder.decode(header.content)
    if consumed >= 0 or error:  # it wants more, or cannot go on
        raise ValueError("the JPEG is broken or cut off")
    image = Image.Image()._new(pixels)  # the way in which Pillow's own methods make images
    return image if mode == "RGB" else image.convert("RGB")


def decode_to_array(header: ImageHeader, divisor: int = 1) -> NDArray[np.uint8] | None:
    """Return the pixels that `decode_plain_jpeg` would, as uint8 (height, width, 3), at a lower price.

    None if the file is no whole JPEG of one scan, or if anything about it is out of order: Pillow may still make
    something of it, and is the one to say what.
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
