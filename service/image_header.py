"""What an image file says of itself before a single pixel is decoded.

`read_header` walks the markers or chunks of a JPEG, PNG or WebP file without decoding anything: size, number of
scans, orientation, and the parts of the file that the pixels depend on. Everything else (colour profiles, comments,
thumbnails, further frames) is left out, so that the decoder never meets it: no decompression bombs in metadata,
no millions of tiny segments, no second parser for EXIF. The walks are bounded and cost microseconds.
"""

import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from service.errors import BadImage, NotAnImage

MAX_PARTS = 10_000  # chunks or segments; a 20 MiB PNG in libpng's usual 8 KiB chunks has 2,560

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_EXIF_PREFIX = b"Exif\x00\x00"
_EXIF_BYTES = 65_536
_ORIENTATION_TAG = 0x0112

# A marker is 0xFF and a byte that is neither stuffing (00), a restart (D0-D7) nor filling (FF).
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01
_SOF_DECODED = frozenset((0xC0, 0xC1, 0xC2))  # Huffman-coded: baseline, extended, progressive
_SOF_PROGRESSIVE = 0xC2
_SOF_OTHERS = frozenset((0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF))
# APPn and comments mean nothing to the pixels, but for JFIF (E0) and Adobe's colour transform (EE).
_JPEG_DROPPED = frozenset((*range(0xE1, 0xEE), 0xEF, 0xFE))
_EXIF_SEGMENT = 0xE1


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Size in pixels as stored (before the orientation is applied), EXIF orientation 1-8, and the bytes to decode."""

    format: str  # JPEG, PNG or WEBP
    width: int
    height: int
    scans: int
    orientation: int
    content: bytes


def read_header(data: bytes) -> ImageHeader:
    """Read the header of a JPEG, PNG or WebP file, told by its first bytes and by nothing else.

    Raises NotAnImage for other files, BadImage for a header that is broken or cut off.
    """
    try:
        if data.startswith(b"\xff\xd8\xff"):
            return _read_jpeg(data)
        if data.startswith(_PNG_SIGNATURE):
            return _read_png(data)
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _read_webp(data)
    except (struct.error, IndexError):
        raise BadImage("The image file is cut off within its header.") from None
    raise NotAnImage("Only JPEG, PNG and WebP images are accepted, and these bytes are none of them.")


def _read_jpeg(data: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    components, progressive = 0, False
    orientation: int | None = None
    kept = [data[:2]]
    position = 2
    for _ in range(MAX_PARTS):
        marker = _NEXT_MARKER.search(data, position)
        if marker is None:
            raise BadImage("The JPEG file has no image data.")
        start, kind = marker.start(), data[marker.end() - 1]
        if kind in (_SOI, _EOI) or kind in _SOF_OTHERS:
            raise BadImage("The JPEG file is broken, or coded in a way that is not supported.")
        if kind == _TEM:
            position = start + 2
            continue
        position = start + 2 + struct.unpack_from(">H", data, start + 2)[0]
        if kind == _SOS:
            if size is None:
                raise BadImage("The JPEG file has no frame header.")
            content = b"".join((*kept, memoryview(data)[start:]))
            # A sequential file whose first scan holds every component is decoded from that scan alone.
            decoded_at_once = not progressive and data[start + 4] == components
            scans = 1 if decoded_at_once else _count_scans(content, len(content) - len(data) + start)
            return ImageHeader("JPEG", *size, scans, orientation or 1, content)
        if kind in _SOF_DECODED:
            if size is not None:
                raise BadImage("The JPEG file has more than one frame header.")
            height, width, components = struct.unpack_from(">HHB", data, start + 5)
            size, progressive = (width, height), kind == _SOF_PROGRESSIVE
        if kind == _EXIF_SEGMENT and orientation is None and data.startswith(_EXIF_PREFIX, start + 4):
            orientation = read_orientation(data[start + 10 : position])
        if kind not in _JPEG_DROPPED:
            kept.append(data[start:position])
    raise BadImage(f"The JPEG file has more than {MAX_PARTS:,} segments before its image data.")


def _count_scans(content: bytes, first_scan: int) -> int:
    """Count SOS markers from the first one to the end of the image, at about 2 ns a byte."""
    scans, position = 0, first_scan
    while marker := _NEXT_MARKER.search(content, position):
        kind = content[marker.end() - 1]
        if kind == _EOI or scans > MAX_PARTS:
            break
        scans += kind == _SOS
        position = marker.end()
        if kind not in (_SOI, _TEM):
            position += int.from_bytes(content[position : position + 2], "big")
    return scans


def _read_png(data: bytes) -> ImageHeader:
    if data[12:16] != b"IHDR":
        raise BadImage("The PNG file does not begin with its header.")
    width, height = struct.unpack_from(">II", data, 16)
    orientation = 1
    kept: list[tuple[int, int]] = [(0, len(_PNG_SIGNATURE))]
    for kind, start, end in _png_chunks(data):
        if kind == b"eXIf":
            orientation = read_orientation(data[start + 8 : end - 4])
        if kind in _PNG_KEPT:
            if kept[-1][1] == start:
                kept[-1] = (kept[-1][0], end)
            else:
                kept.append((start, end))
    return ImageHeader("PNG", width, height, 1, orientation, _joined(data, kept))


def _png_chunks(data: bytes) -> Iterable[tuple[bytes, int, int]]:
    """Yield type, start and end of each chunk; the last one may be cut off."""
    position = len(_PNG_SIGNATURE)
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        yield kind, position, min(end, len(data))
        if kind == b"IEND":
            return
        position = end
    raise BadImage(f"The PNG file has more than {MAX_PARTS:,} chunks.")


def _joined(data: bytes, ranges: list[tuple[int, int]]) -> bytes:
    if ranges == [(0, len(data))]:
        return data
    view = memoryview(data)
    return b"".join([view[start:end] for start, end in ranges])


def _read_webp(data: bytes) -> ImageHeader:
    kind = data[12:16]
    orientation = 1
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    elif kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
        if len(data) < 30:
            raise BadImage("The WebP file is cut off within its header.")
        for chunk, start, end in _webp_chunks(data):
            if chunk == b"EXIF":
                orientation = read_orientation(data[start + 8 : end].removeprefix(_EXIF_PREFIX))
    else:
        raise BadImage("The WebP file holds no image.")
    return ImageHeader("WEBP", width, height, 1, orientation, data)


def _webp_chunks(data: bytes) -> Iterable[tuple[bytes, int, int]]:
    position = 12
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            return
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length
        yield kind, position, min(end, len(data))
        position = end + (length & 1)
    raise BadImage(f"The WebP file has more than {MAX_PARTS:,} chunks.")


def read_orientation(exif: bytes) -> int:
    """Return the orientation (1-8) that a TIFF-structured EXIF block names, or 1 if it names none that makes sense."""
    exif = exif[:_EXIF_BYTES]
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, directory)
        for entry in range(entries):
            tag, kind, count, value = struct.unpack_from(order + "HHIH", exif, directory + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG:
                return value if kind == 3 and count == 1 and 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1
