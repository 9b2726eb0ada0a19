"""Direct calls of the image decoders. `Image.open` would load 44 other readers and search a JPEG for more images.

An ordinary JPEG bypasses Pillow's reader, which would parse the header again in Python. Its bytes go to the decoder
of that reader, so the pixels are the same. A JPEG that is needed as an array is decoded by simplejpeg, which uses the
same library, libjpeg-turbo, and writes the array without a Pillow image. A small ordinary PNG, such as an image of
CIFAR-10, goes to the decoder of Pillow's reader in the same way: 30 instead of 70 microseconds.
"""

import io
import time
import zlib

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image, ImageFile, _imaging
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from service.images.header import ImageHeader

_MODES = {1: "L", 3: "RGB"}  # of JPEGs, by their components
# An ordinary PNG without what the header walk strips: signature, IHDR, one IDAT, IEND.
_IHDR_AT, _IDAT_AT, _BESIDE_DATA = 12, 33, 12  # bytes; before and after the data of a chunk
_START_OF_IHDR = b"\0\0\0\rIHDR"
_RGB_OF_8_BITS = bytes((8, 2, 0, 0, 0))  # depth, colour type, compression, filter, no interlace
_END_OF_PNG = b"\0\0\0\0IEND\xaeB`\x82"
_SMALL_PNG_PIXELS, _SMALL_PNG_BYTES = 65_536, 262_144  # decoded in about 2 ms, so without a limit on the time


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


def decode_plain_png(header: ImageHeader) -> Image.Image | None:
    """Return a small opaque RGB image of 8 bits in one chunk of data, or None for any other or a broken file.

    Pillow decides about all others. It checks the checksum of IHDR, but not of the data.
    """
    content = header.content
    if header.format != "PNG" or header.width * header.height > _SMALL_PNG_PIXELS or len(content) > _SMALL_PNG_BYTES:
        return None
    end = len(content) - len(_END_OF_PNG)
    has_plain_header = content[8:16] == _START_OF_IHDR and content[24:29] == _RGB_OF_8_BITS
    if not has_plain_header or content[37:41] != b"IDAT" or not content.endswith(_END_OF_PNG):
        return None
    if int.from_bytes(content[_IDAT_AT:37]) != end - _IDAT_AT - _BESIDE_DATA:
        return None
    if zlib.crc32(content[_IHDR_AT:29]) != int.from_bytes(content[29:_IDAT_AT]):
        return None
    pixels = _imaging.new("RGB", (header.width, header.height))
    decoder = _imaging.zip_decoder("RGB", "RGB")
    decoder.setimage(pixels, (0, 0, header.width, header.height))
    try:
        consumed, error = decoder.decode(content[41 : end - 4])
    finally:
        decoder.cleanup()
    return None if consumed >= 0 or error else Image.Image()._new(pixels)


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
