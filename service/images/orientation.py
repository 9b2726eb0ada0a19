"""The orientation of an image, from EXIF or else from XMP, interpreted as Pillow interprets it.

The value may be of any integer type, a rational or a float, in either byte order; of several values the first counts.
Pillow does not read the types BYTE, ASCII and UNDEFINED as numbers, so such an entry means "as stored". The number of
entries and the size of decompressed text are limited.
"""

import re
import struct
import zlib

EXIF_PREFIX = b"Exif\x00\x00"
XMP_PREFIX = b"http://ns.adobe.com/xap/1.0/\x00"

_MAX_ENTRIES = 4096  # of an EXIF directory; cameras write about 15
_MAX_TEXT_BYTES = 1 << 20  # as Pillow's own limit
_MAX_PACKED_BYTES = 1 << 18  # of deflated text: the worst 256 KiB take 25 ms
_TAG = 0x0112
_ORDERS = {
    b"II*\x00": "<",
    b"II\x00*": "<",
    b"MM\x00*": ">",
    b"MM*\x00": ">",
    b"MM\x00+": ">",
}
_NUMBERS = {3: "H", 4: "I", 5: "II", 6: "b", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d", 13: "I", 16: "Q"}  # by type
_BYTES = frozenset((1, 2, 7))
_INLINE_BYTES = 4  # larger values are stored at an offset
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_RAW_PROFILE_LINES = 3  # before the hexadecimal digits: an empty one, the name, the length


def read_orientation(exif: bytes, xmp: bytes = b"") -> int:
    """Return the orientation (1-8) of a TIFF-structured EXIF block, else that of XMP, else 1.

    The block may begin with `Exif\\0\\0`, once or twice.
    """
    found = _in_exif(exif.removeprefix(EXIF_PREFIX).removeprefix(EXIF_PREFIX)) if exif else None
    if found is None and xmp:
        match = _XMP_ORIENTATION.search(xmp)
        found = int(match[1]) if match else None
    return found if found is not None and 1 <= found <= 8 else 1


def _in_exif(exif: bytes) -> int | None:
    """Return the value of the first valid entry, 0 if it is not a number, and None if there is no entry."""
    order = _ORDERS.get(exif[:4])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(order + "I", exif, 4)
        (entries,) = struct.unpack_from(order + "H", exif, directory)
        for start in range(directory + 2, directory + 2 + 12 * min(entries, _MAX_ENTRIES), 12):
            tag, kind, count = struct.unpack_from(order + "HHI", exif, start)
            if tag == _TAG and count and (value := _value(exif, order, start + 8, kind, count)) is not None:
                return value
    except struct.error:
        pass
    return None


def _value(exif: bytes, order: str, place: int, kind: int, count: int) -> int | None:
    """Return the first number of an entry whose value or offset is at `place`; None for an unknown type."""
    if kind in _BYTES:
        return 0
    layout = _NUMBERS.get(kind)
    if layout is None:
        return None
    if struct.calcsize(order + layout) * count > _INLINE_BYTES:
        (place,) = struct.unpack_from(order + "I", exif, place)
    number, *divisor = struct.unpack_from(order + layout, exif, place)
    whole = number / divisor[0] if divisor and divisor[0] else number if not divisor else 0
    return int(whole) if whole in range(1, 9) else 0


def png_text(chunk: bytes) -> bytes:
    """Return the text of a complete tEXt, zTXt or iTXt chunk, which begins with its length; b"" if inflating fails."""
    kind, body = chunk[4:8], chunk[8:-4]
    _, _, text = body.partition(b"\x00")
    if kind == b"tEXt":
        return text[:_MAX_TEXT_BYTES]
    if kind == b"zTXt":
        return _unpacked(text[1:])
    _, _, words = text[2:].partition(b"\x00")  # after flag and method: a language, then a translated key
    _, _, words = words.partition(b"\x00")
    return words[:_MAX_TEXT_BYTES] if text[:1] == b"\x00" else _unpacked(words)


def _unpacked(text: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(text[:_MAX_PACKED_BYTES], _MAX_TEXT_BYTES)
    except zlib.error:
        return b""


def raw_profile(text: bytes) -> bytes:
    """Return the EXIF block that ImageMagick writes as hexadecimal text, or b"" if the text is invalid."""
    try:
        return bytes.fromhex(b"".join(text.split(b"\n")[_RAW_PROFILE_LINES:]).decode("ascii"))
    except ValueError:
        return b""
