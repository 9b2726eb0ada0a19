"""Bodies as gzip or deflate (by which HTTP means zlib), both ways, with the limit counted on what comes out."""

import zlib
from collections.abc import Iterator

from service.errors import BadRequest, NotAnImage, TooLarge
from service.http.accept import weights_of

_GZIP, _RAW = 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS
_WINDOWS = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": zlib.MAX_WBITS}
_OFFERED = ("identity", "gzip", "deflate")
_LEVEL = 1
_PIECE_BYTES = 16 * 1024  # what follows a member is copied for each
_FREE_MEMBERS, _LEAST_MEMBER_BYTES = 64, 1024  # beyond so many, the mean has to unpack to so much: each costs 3 µs


def unpacked(body: bytes, encoding: bytes, most_bytes: int) -> bytes:
    """Return what a body was before its Content-Encoding.

    gzip may have several members (RFC 1952, section 2.2) and zeros behind them; deflate may lack its zlib header, as
    many clients take the name by its word.

    Raises NotAnImage (415) for an encoding that is not known, BadRequest for broken data, TooLarge before more than
    `most_bytes` are unpacked.
    """
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return body
    if name not in _WINDOWS:
        raise NotAnImage("Content-Encoding must be gzip, deflate or identity.", code="unsupported_encoding")
    try:
        content, rest = _unpacked_member(body, _WINDOWS[name], most_bytes)
    except zlib.error:
        raise _invalid(name) from None
    if not rest:
        return content
    if _WINDOWS[name] != _GZIP:
        raise _cut_off(name)
    try:
        return b"".join((content, *_further_members(rest, len(content), most_bytes)))
    except zlib.error:
        raise _invalid(name) from None


def _unpacked_member(body: bytes, window: int, most_bytes: int) -> tuple[bytes, bytes]:
    """Return what the beginning of a body unpacks to, and what follows it."""
    unpacker = zlib.decompressobj(window)
    try:
        content = unpacker.decompress(body, most_bytes + 1)
    except zlib.error:
        if window != zlib.MAX_WBITS:
            raise
        unpacker = zlib.decompressobj(_RAW)
        content = unpacker.decompress(body, most_bytes + 1)
    _check_size(len(content), most_bytes)
    if not unpacker.eof:
        raise _cut_off(b"gzip" if window == _GZIP else b"deflate")
    return content, unpacker.unused_data


def _further_members(body: bytes, size: int, most_bytes: int) -> Iterator[bytes]:
    """Yield what follows the first member of a gzip body, in pieces; `size`: what that one has unpacked to."""
    at, members = 0, 1
    while at < len(body) and not _is_padding(body, at):
        unpacker = zlib.decompressobj(_GZIP)
        members += 1
        if members > _FREE_MEMBERS + size // _LEAST_MEMBER_BYTES:
            raise BadRequest("The gzip body has too many tiny members; pack it as one.", code="bad_encoding")
        while not unpacker.eof:
            piece = body[at : at + _PIECE_BYTES]
            if not piece:
                raise _cut_off(b"gzip")
            content = unpacker.decompress(piece, most_bytes + 1 - size)
            size += len(content)
            _check_size(size, most_bytes)
            at += len(piece) - len(unpacker.unused_data)
            yield content


def _is_padding(body: bytes, at: int) -> bool:
    return body[at] == 0 and body.count(0, at) == len(body) - at


def _check_size(size: int, most_bytes: int) -> None:
    if size > most_bytes:
        raise TooLarge(f"The body unpacks to more than {most_bytes:,} bytes.")


def _invalid(name: bytes) -> BadRequest:
    return BadRequest(f"The body is not valid {name.decode()}.", code="bad_encoding")


def _cut_off(name: bytes) -> BadRequest:
    return BadRequest(f"The {name.decode()} body is cut off, or goes on after its end.", code="bad_encoding")


def packed(body: bytes, accepted: bytes) -> tuple[bytes, bytes | None]:
    """Return a body as its client likes it best (by Accept-Encoding), and the name of the encoding if there is one."""
    weights = weights_of(accepted)
    liked = {name: weights.get(name, weights.get("*", 0.0)) for name in _OFFERED}
    if "identity" not in weights:
        liked["identity"] = 0.0  # welcome, but whoever names others would rather have those
    encoding = max(_OFFERED, key=lambda name: liked[name]).encode()  # max takes the first of equals
    if encoding not in _WINDOWS:
        return body, None
    packer = zlib.compressobj(_LEVEL, wbits=_WINDOWS[encoding])
    return packer.compress(body) + packer.flush(), encoding
