"""What an image file says of itself before a single pixel is decoded.

`read_header` walks the markers or chunks of a JPEG, PNG or WebP file without decoding anything: size, number of
scans, orientation, and the parts of the file that the pixels depend on. Of JPEG and PNG everything else (colour
profiles, comments, thumbnails, further frames) is left out, so that the decoder never meets it: no decompression bombs
in metadata, no millions of tiny segments, no second parser for EXIF. Of WebP the decoder reads no more than it needs.
The walks are bounded and cost microseconds.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from service.errors import BadImage, NotAnImage

MAX_PARTS = 10_000  # chunks or segments; a 20 MiB PNG in libpng's usual 8 KiB chunks has 2,560
MAX_TABLE_BYTES = 131_072  # what a JPEG may hold before its first scan, metadata aside; encoders write about 600

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_EXIF_PREFIX = b"Exif\x00\x00"
_EXIF_BYTES = 65_536
_ORIENTATION_TAG = 0x0112
_WEBP_HAS_EXIF = 0x08  # a flag of the VP8X header

# A marker is 0xFF and a byte that is neither stuffing (00), a restart (D0-D7) nor filling (FF).
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
_EOI, _SOS, _TEM = 0xD9, 0xDA, 0x01
_SOF_DECODED = frozenset((0xC0, 0xC1, 0xC2))  # Huffman-coded: baseline, extended, progressive
_SOF_PROGRESSIVE = 0xC2
_TABLES = frozenset((0xC4, 0xDB, 0xDC, 0xDD))  # DHT, DQT, DNL, DRI
# APPn and comments mean nothing to the pixels, but for JFIF (E0) and Adobe's colour transform (EE).
_APPLICATION_OR_COMMENT = frozenset((*range(0xE0, 0xF0), 0xFE))
_JPEG_KEPT = _SOF_DECODED | _TABLES | {0xE0, 0xEE}
_EXIF_SEGMENT = 0xE1


@dataclass(slots=True)  # not frozen: one is made for each picture, and that would triple what it costs
class ImageHeader:
    """Size in pixels as stored (before the orientation is applied), EXIF orientation 1-8, and the bytes to decode."""

    format: str  # JPEG, PNG or WEBP
    width: int
    height: int
    scans: int
    orientation: int
    bytes_per_pixel: int  # once unpacked; palettes and less than 8 bits count as 1
    content: bytes


def format_of(data: bytes) -> str | None:
    """Return what a file is by its first bytes, JPEG, PNG or WEBP, or None for anything else."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(_PNG_SIGNATURE):
        return "PNG"
    return "WEBP" if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else None


def check_format(data: bytes) -> str:
    """Return what a file is by its first bytes. Raises NotAnImage for anything but JPEG, PNG and WebP."""
    kind = format_of(data)
    if kind is None:
        raise NotAnImage("Only JPEG, PNG and WebP images are accepted, and these bytes are none of them.")
    return kind


def read_header(data: bytes) -> ImageHeader:
    """Read the header of a JPEG, PNG or WebP file, told by its first bytes and by nothing else.

    Raises NotAnImage for other files, BadImage for a header that is broken or cut off.
    """
    kind = check_format(data)
    try:
        if kind == "JPEG":
            return _read_jpeg(data)
        if kind == "PNG":
            return _read_png(data)
        return _read_webp(data)
    except (struct.error, IndexError):
        raise BadImage("The image file is cut off within its header.") from None


def _read_jpeg(data: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    components, progressive, table_bytes = 0, False, 0
    orientation: int | None = None
    kept = [(0, 2)]
    for kind, start, end in _jpeg_segments(data, 2):
        if kind == _SOS:
            if size is None:
                raise BadImage("The JPEG file has no frame header.")
            _keep(kept, start, len(data))
            # A sequential file whose first scan holds every component is decoded from that scan alone.
            decoded_at_once = not progressive and data[start + 4] == components
            scans = 1 if decoded_at_once else _count_scans(data, start)
            return ImageHeader("JPEG", *size, scans, orientation or 1, components, _joined(data, kept))
        if kind in _SOF_DECODED:
            if size is not None:
                raise BadImage("The JPEG file has more than one frame header.")
            height, width, components = struct.unpack_from(">HHB", data, start + 5)
            size, progressive = (width, height), kind == _SOF_PROGRESSIVE
        elif kind == _EXIF_SEGMENT and orientation is None and data.startswith(_EXIF_PREFIX, start + 4):
            orientation = read_orientation(data[start + 10 : end])
        if kind in _JPEG_KEPT:
            _keep(kept, start, end)
            table_bytes += end - start
            if table_bytes > MAX_TABLE_BYTES:
                raise BadImage(f"The JPEG file has more than {MAX_TABLE_BYTES:,} bytes of tables.")
    raise BadImage("The JPEG file has no image data.")


def _jpeg_segments(data: bytes, position: int) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment from `position` to the end of the image, scan data skipped.

    Whatever libjpeg would read in another way than this walk does, is refused: so no scan can hide from it.
    """
    for _ in range(MAX_PARTS):
        marker = _NEXT_MARKER.search(data, position)
        if marker is None:
            return
        start, kind = marker.start(), data[marker.end() - 1]
        if kind == _EOI:
            return
        if kind == _TEM:
            position = start + 2
            continue
        if kind != _SOS and kind not in _JPEG_KEPT and kind not in _APPLICATION_OR_COMMENT:
            raise BadImage("The JPEG file is broken, or coded in a way that is not supported.")
        (length,) = struct.unpack_from(">H", data, start + 2)
        if length < 2:
            raise BadImage("The JPEG file is broken: it has a segment of no length.")
        position = start + 2 + length
        yield kind, start, position
    raise BadImage(f"The JPEG file has more than {MAX_PARTS:,} segments.")


def _count_scans(data: bytes, first_scan: int) -> int:
    """Count SOS markers from the first one to the end of the image, at about 2 ns a byte."""
    return sum(kind == _SOS for kind, _, _ in _jpeg_segments(data, first_scan))


def _keep(kept: list[tuple[int, int]], start: int, end: int) -> None:
    if kept[-1][1] == start:
        kept[-1] = (kept[-1][0], end)
    else:
        kept.append((start, end))


def _joined(data: bytes, ranges: list[tuple[int, int]]) -> bytes:
    if ranges == [(0, len(data))]:
        return data
    view = memoryview(data)
    return b"".join([view[start:end] for start, end in ranges])


def _read_png(data: bytes) -> ImageHeader:
    if data[12:16] != b"IHDR":
        raise BadImage("The PNG file does not begin with its header.")
    width, height, depth, colour = struct.unpack_from(">IIBB", data, 16)
    bytes_per_pixel = max(1, depth // 8) * _PNG_CHANNELS.get(colour, 4)
    exif = b""
    kept = [(0, len(_PNG_SIGNATURE))]
    for kind, start, end in _png_chunks(data):
        if kind == b"eXIf":
            exif = data[start + 8 : min(end - 4, start + 8 + _EXIF_BYTES)]
        elif kind in _PNG_KEPT:
            _keep(kept, start, end)
            if kind == b"tRNS" and colour == 2:  # one transparent colour, looked for in every pixel
                bytes_per_pixel = 12 if depth == 16 else 5  # 16 bits are unpacked twice, to compare all of them
    return ImageHeader("PNG", width, height, 1, read_orientation(exif), bytes_per_pixel, _joined(data, kept))


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
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


def _read_webp(data: bytes) -> ImageHeader:
    kind = data[12:16]
    orientation = 1
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, ((bits >> 14) & 0x3FFF) + 1
    elif kind == b"VP8X":
        low_width, high_width, low_height, high_height = struct.unpack_from("<HBHB", data, 24)
        width, height = (high_width << 16 | low_width) + 1, (high_height << 16 | low_height) + 1
        orientation = _webp_orientation(data)
    else:
        raise BadImage("The WebP file holds no image.")
    return ImageHeader("WEBP", width, height, 1, orientation, 4, data)


def _webp_orientation(data: bytes) -> int:
    if not data[20] & _WEBP_HAS_EXIF:
        return 1
    exif = (data[start + 8 : end] for kind, start, end in _webp_chunks(data) if kind == b"EXIF")
    return read_orientation(next(exif, b"").removeprefix(_EXIF_PREFIX))


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    (size,) = struct.unpack_from("<I", data, 4)
    position, file_end = 12, min(8 + size, len(data))
    for _ in range(MAX_PARTS):
        if position + 8 > file_end:
            return
        kind, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length
        yield kind, position, min(end, file_end)
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
