"""Image headers: size, scans and orientation of a JPEG, PNG or WebP file, read before any pixel is decoded.

`read_header` walks the segments or chunks of the file and collects the bytes that the pixels depend on. It removes all
other parts of a JPEG or PNG (colour profiles, comments, thumbnails, further frames), so that the decoder never reads
them. This excludes decompression bombs in metadata, millions of tiny segments, and a second EXIF parser. The WebP
decoder reads only the parts that it needs. Each walk has a limit on its steps and takes microseconds.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from service.errors import BadImage, NotAnImage
from service.images.file_types import LINE_ENDS_LOST, describe_file, has_lost_line_ends
from service.images.jpeg_segments import (
    END_OF_IMAGE,
    KEPT,
    MAX_PARTS,
    SOF_DECODED,
    SOF_PROGRESSIVE,
    SOS,
    components_of,
    jpeg_segments,
    read_frame,
)
from service.images.orientation import EXIF_PREFIX, XMP_PREFIX, png_text, raw_profile, read_orientation

__all__ = [
    "MAX_PARTS",
    "MAX_TABLE_BYTES",
    "ImageHeader",
    "check_format",
    "format_of",
    "read_header",
    "read_orientation",
]

MAX_TABLE_BYTES = 131_072  # of a JPEG before its first scan, without metadata; encoders write about 600

_BITS_A_SAMPLE = 8  # of a JPEG
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_PNG_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_XMP_KEY, _RAW_PROFILE_KEY, _EXIF_KEY = b"XML:com.adobe.xmp\x00", b"Raw profile type exif\x00", b"exif\x00"
_WEBP_HAS_EXIF, _WEBP_HAS_XMP = 0x08, 0x04  # flags of the VP8X header
_METADATA_SEGMENT = 0xE1  # APP1


@dataclass(slots=True)  # not frozen: a frozen instance takes three times as long to create
class ImageHeader:
    """The stored size in pixels (before orientation), the EXIF orientation 1-8, and the bytes to decode."""

    format: str  # JPEG, PNG or WEBP
    width: int
    height: int
    scans: int
    orientation: int
    bytes_per_pixel: int  # decoded; palettes and less than 8 bits count as 1
    content: bytes
    coefficient_bytes: int = 0  # memory of the coefficients of a JPEG with several scans
    scan_pixels: int = 0  # sum of the pixels of those scans
    is_truncated: bool = False  # a JPEG without an end marker


def format_of(data: bytes) -> str | None:
    """Return the format of a file by its first bytes: JPEG, PNG or WEBP, or None for any other."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(_PNG_SIGNATURE):
        return "PNG"
    return "WEBP" if data.startswith(b"RIFF") and data[8:12] == b"WEBP" else None


def check_format(data: bytes, *, is_sent: bool = False) -> str:
    """Return the format of a file by its first bytes: JPEG, PNG or WEBP.

    Raises NotAnImage for any other file, with its type. `is_sent` adds advice for clients to the message.
    """
    kind = format_of(data)
    if kind is None:
        raise NotAnImage(describe_file(data, is_sent=is_sent))
    return kind


def read_header(data: bytes) -> ImageHeader:
    """Return the header of a JPEG, PNG or WebP file; only the first bytes decide on the format.

    Raises NotAnImage for other files, BadImage for a header that is broken or truncated.
    """
    kind = check_format(data)
    try:
        if kind == "JPEG":
            return _read_jpeg(data)
        if kind == "PNG":
            return _read_png(data)
        return _read_webp(data)
    except (struct.error, IndexError):
        fault = BadImage("The image file is truncated within its header.")
    except BadImage as error:
        fault = error
    raise BadImage(LINE_ENDS_LOST) if has_lost_line_ends(data) else fault


def _read_jpeg(data: bytes) -> ImageHeader:
    frame, table_bytes = 0, 0
    exif: list[bytes] = []  # the parts of one block
    xmp: list[bytes] = []  # the last block counts
    kept = [(0, 2)]
    for kind, start, end in jpeg_segments(data, 2):
        if kind == SOS:
            if not frame:
                raise BadImage("The JPEG file has no frame header.")
            _keep(kept, start, len(data))
            orientation = read_orientation(b"".join(exif), xmp[-1] if xmp else b"") if exif or xmp else 1
            return _jpeg_header(data, frame, start, orientation, _joined(data, kept))
        if kind in SOF_DECODED:
            if frame:
                raise BadImage("The JPEG file has more than one frame header.")
            frame = start
        elif kind == _METADATA_SEGMENT:
            _note_metadata(data, start + 4, end, exif, xmp)
        if kind in KEPT:
            _keep(kept, start, end)
            table_bytes += end - start
            if table_bytes > MAX_TABLE_BYTES:
                raise BadImage(f"The JPEG file has more than {MAX_TABLE_BYTES:,} bytes of tables.")
    raise BadImage("The JPEG file has no image data.")


def _note_metadata(data: bytes, start: int, end: int, exif: list[bytes], xmp: list[bytes]) -> None:
    if data.startswith(EXIF_PREFIX, start):
        exif.append(data[start + len(EXIF_PREFIX) : end])
    elif data.startswith(XMP_PREFIX, start):
        xmp.append(data[start + len(XMP_PREFIX) : end])


def _jpeg_header(data: bytes, frame: int, scan: int, orientation: int, content: bytes) -> ImageHeader:
    bits, height, width, components = struct.unpack_from(">BHHB", data, frame + 4)
    if bits != _BITS_A_SAMPLE:
        raise BadImage(f"The JPEG file has {bits} bits a sample; save it again with {_BITS_A_SAMPLE}.")
    header = ImageHeader("JPEG", width, height, 1, orientation, components, content)
    if not content.endswith(END_OF_IMAGE):  # scan data cannot contain these two bytes
        header.is_truncated = content.rfind(END_OF_IMAGE) < 0
    # A sequential file whose first scan holds every component is decoded from that scan alone.
    if data[frame + 1] == SOF_PROGRESSIVE or data[scan + 4] != components:
        _note_scans(header, data, frame, scan)
    return header


def _note_scans(header: ImageHeader, data: bytes, frame_start: int, first_scan: int) -> None:
    """Set the number of scans, and the memory and work to decode all of them."""
    scans = [components_of(data, start) for kind, start, _ in jpeg_segments(data, first_scan) if kind == SOS]
    header.scans = len(scans)
    header.coefficient_bytes, header.scan_pixels = read_frame(data, frame_start).work(scans)


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
    metadata: dict[bytes, bytes] = {}  # the last chunk of each kind, with its length and type
    kept = [(0, len(_PNG_SIGNATURE))]
    for kind, start, end in _png_chunks(data):
        if kind == b"eXIf":
            metadata[_EXIF_KEY] = data[start:end]
        elif kind in _PNG_TEXTS:
            for key in (_XMP_KEY, _RAW_PROFILE_KEY, _EXIF_KEY):
                if data.startswith(key, start + 8):
                    metadata[key] = data[start:end]
        elif kind in _PNG_KEPT:
            _keep(kept, start, end)
            if kind == b"tRNS" and colour == 2:  # one transparent colour, compared with every pixel
                bytes_per_pixel = 12 if depth == 16 else 5  # 16-bit samples are decoded twice, one byte at a time
    orientation = _png_orientation(metadata) if metadata else 1
    return ImageHeader("PNG", width, height, 1, orientation, bytes_per_pixel, _joined(data, kept))


def _png_orientation(metadata: dict[bytes, bytes]) -> int:
    exif = b""
    if (chunk := metadata.get(_EXIF_KEY)) is not None:
        exif = chunk[8:-4] if chunk[4:8] == b"eXIf" else png_text(chunk)
    elif (chunk := metadata.get(_RAW_PROFILE_KEY)) is not None:
        exif = raw_profile(png_text(chunk))
    return read_orientation(exif, png_text(metadata[_XMP_KEY]) if _XMP_KEY in metadata else b"")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield type, start and end of each chunk; the last one may be truncated."""
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
    flags = {b"EXIF": _WEBP_HAS_EXIF, b"XMP ": _WEBP_HAS_XMP}
    needed = {kind for kind, flag in flags.items() if data[20] & flag}
    found: dict[bytes, bytes] = {}
    chunks = _webp_chunks(data)
    while len(found) < len(needed) and (chunk := next(chunks, None)) is not None:
        kind, start, end = chunk
        if kind in needed:
            found.setdefault(kind, data[start + 8 : end])
    return read_orientation(found.get(b"EXIF", b""), found.get(b"XMP ", b""))


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
