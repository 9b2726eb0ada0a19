"""Bodies as gzip or zlib (which HTTP calls deflate), both ways, with the limit counted on what comes out."""

import zlib

from service.api.accept import weights_of
from service.errors import BadRequest, NotAnImage, TooLarge

_GZIP = 16 + zlib.MAX_WBITS
_WINDOWS = {b"gzip": _GZIP, b"x-gzip": _GZIP, b"deflate": zlib.MAX_WBITS}
_OFFERED = ("identity", "gzip", "deflate")
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
