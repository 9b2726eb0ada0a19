"""Base64 in the variants of clients: with line ends, without padding, URL-safe (RFC 4648), or a data URL (RFC 2397)."""

import binascii
import re
from collections.abc import Iterator

_PIECE_BYTES = 256 * 1024  # a whole file in one call would hold the GIL for a tenth of a second
_DATA_URL = re.compile(rb"data:([^,]{0,1000}),", re.IGNORECASE)
_STANDARD = bytes.maketrans(b"-_", b"+/")
_LINE_ENDS = b"\r\n"
_ESCAPES = {b"%2B": b"+", b"%2b": b"+", b"%2F": b"/", b"%2f": b"/", b"%3D": b"=", b"%3d": b"="}
_LAST_GROUP = 4


def from_base64(text: bytes) -> bytes:
    """Return the decoded bytes of base64 or of a data URL with base64. Raises ValueError."""
    text = text.strip()
    decoded, rest = [], b""
    for piece in _pieces(text, _start_of_data(text)):
        rest += piece.translate(_STANDARD, _LINE_ENDS)
        whole = max(0, len(rest) - len(rest) % 4 - _LAST_GROUP)
        if b"=" in rest[:whole]:
            raise ValueError("padding before the end")
        decoded.append(binascii.a2b_base64(rest[:whole], strict_mode=True))
        rest = rest[whole:]
    if not rest.endswith(b"="):
        rest += b"=" * (-len(rest) % 4)
    decoded.append(binascii.a2b_base64(rest, strict_mode=True))
    return b"".join(decoded)


def _start_of_data(text: bytes) -> int:
    """Return the offset of the base64 in a data URL, or 0. Raises ValueError for a data URL without base64."""
    url = _DATA_URL.match(text)
    if url is None:
        return 0
    if url[1].rpartition(b";")[2].strip().lower() != b"base64":
        raise ValueError("a data URL without base64")
    return url.end()


def _pieces(text: bytes, start: int) -> Iterator[bytes]:
    """Yield the text in pieces; percent-encoded base64 characters of a URL are decoded."""
    is_url = start > 0
    while start < len(text):
        end = start + _PIECE_BYTES
        escape = text.rfind(b"%", end - 2, end) if is_url and end < len(text) else -1
        end = end if escape < 0 else escape
        yield _unescaped(text[start:end]) if is_url else text[start:end]
        start = end


def _unescaped(piece: bytes) -> bytes:
    if b"%" in piece:
        for escape, plain in _ESCAPES.items():
            piece = piece.replace(escape, plain)
    return piece
