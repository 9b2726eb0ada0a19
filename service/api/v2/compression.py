"""Compressed request and response bodies: gzip and deflate (zlib in HTTP), with a limit on the decompressed size."""

import zlib
from collections.abc import Iterator

from service.errors import BadRequest, NotAnImage, TooLarge
from service.http.accept import weights_of

_GZIP, _RAW = 16 + zlib.MAX_WBITS, -zlib.MAX_WBITS
_WINDOWS = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": zlib.MAX_WBITS}
_OFFERED = ("identity", "gzip", "deflate")
_LEVEL = 1
_PIECE_BYTES = 16 * 1024  # the rest of a piece is copied for each member
_FREE_MEMBERS, _LEAST_MEMBER_BYTES = 64, 1024  # the mean size is checked beyond 64 members, as each costs 3 µs


def unpacked(body: bytes, encoding: bytes, most_bytes: int) -> bytes:
    """Return the decompressed body.

    gzip may have several members (RFC 1952, section 2.2) and trailing zeros. deflate may lack the zlib header, as many
    clients send raw deflate data.

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
    """Return the decompressed beginning of a body, and the bytes that follow it."""
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
    """Yield the decompressed members after the first one of a gzip body, in pieces; `size` is that of the first one."""
    at, members = 0, 1
    while at < len(body) and not _is_padding(body, at):
        unpacker = zlib.decompressobj(_GZIP)
        members += 1
        if members > _FREE_MEMBERS + size // _LEAST_MEMBER_BYTES:
            raise BadRequest("The gzip body has too many tiny members; compress it as one.", code="bad_encoding")
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
        raise TooLarge(f"The decompressed body has more than {most_bytes:,} bytes.")


def _invalid(name: bytes) -> BadRequest:
    return BadRequest(f"The body is not valid {name.decode()}.", code="bad_encoding")


def _cut_off(name: bytes) -> BadRequest:
    return BadRequest(f"The {name.decode()} body is truncated, or has data after its end.", code="bad_encoding")


def packed(body: bytes, accepted: bytes) -> tuple[bytes, bytes | None]:
    """Return a body in the encoding that the client prefers (by Accept-Encoding), and its name, or None."""
    weights = weights_of(accepted)
    liked = {name: weights.get(name, weights.get("*", 0.0)) for name in _OFFERED}
    if "identity" not in weights:
        liked["identity"] = 0.0  # allowed, but a client that lists other encodings prefers them
    encoding = max(_OFFERED, key=lambda name: liked[name]).encode()  # max returns the first of equals
    if encoding not in _WINDOWS:
        return body, None
    packer = zlib.compressobj(_LEVEL, wbits=_WINDOWS[encoding])
    return packer.compress(body) + packer.flush(), encoding
