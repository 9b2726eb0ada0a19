"""Bodies as gzip or zlib (which HTTP calls deflate), both ways, with the limit counted on what comes out."""

import zlib

from service.errors import BadRequest, NotAnImage, TooLarge

_WINDOWS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}
_WORTH_IT = 1024  # bytes; below, the headers weigh more
_LEVEL = 1


def unpacked(body: bytes, encoding: bytes, most_bytes: int) -> bytes:
    """Return what a body was before its Content-Encoding.

    Raises NotAnImage (415) for an encoding that is not known, BadRequest for broken data, TooLarge before more than
    `most_bytes` are unpacked.
    """
    name = encoding.strip().lower()
    if name in (b"", b"identity"):
        return body
    if name not in _WINDOWS:
        raise NotAnImage("Content-Encoding must be gzip, deflate or identity.", code="unsupported_encoding")
    unpacker = zlib.decompressobj(_WINDOWS[name])
    try:
        content = unpacker.decompress(body, most_bytes + 1)
    except zlib.error:
        raise BadRequest(f"The body is not valid {name.decode()}.", code="bad_encoding") from None
    if len(content) > most_bytes:
        raise TooLarge(f"The body unpacks to more than {most_bytes:,} bytes.")
    if not unpacker.eof or unpacker.unused_data:
        raise BadRequest(f"The {name.decode()} body is cut off, or goes on after its end.", code="bad_encoding")
    return content


def packed(body: bytes, accepted: bytes) -> tuple[bytes, bytes | None]:
    """Return a body as its client accepts it (by Accept-Encoding), and the name of the encoding if there is one."""
    names = [part.partition(b";") for part in accepted.lower().split(b",")]
    wanted = [name.strip() for name, _, weight in names if weight.replace(b" ", b"") not in (b"q=0", b"q=0.0")]
    encoding = next((name for name in wanted if name in _WINDOWS), None)
    if encoding is None or len(body) < _WORTH_IT:
        return body, None
    packer = zlib.compressobj(_LEVEL, wbits=_WINDOWS[encoding])
    return packer.compress(body) + packer.flush(), encoding
