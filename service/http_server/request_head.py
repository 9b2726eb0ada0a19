"""Validation of a request's head beyond the grammar, which httptools checks (RFC 9110, RFC 9112)."""

from collections.abc import Mapping

from service.http_server.early_errors import (
    BAD_HOST,
    BAD_HTTP,
    CONNECT_NOT_SUPPORTED,
    UNSUPPORTED_CODING,
    UNSUPPORTED_VERSION,
    ProtocolError,
)

Headers = list[tuple[bytes, bytes]]
# RFC 3986, section 3.2: unreserved, percent-encoded, sub-delims, and the delimiters of IPv6 addresses and ports.
_HOST_BYTES = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~%!$&'()*+,;=:[]"


def refusal_of_head(method: bytes, version: str, headers: Headers, last: Mapping[bytes, bytes]) -> ProtocolError | None:
    """Return the error of an invalid head, or None; `last` has the last header of each name."""
    if version not in ("1.1", "1.0"):
        return UNSUPPORTED_VERSION
    if method == b"CONNECT":
        return CONNECT_NOT_SUPPORTED
    host = last.get(b"host")
    if host is None:
        if version == "1.1":
            return BAD_HOST
    elif host.translate(None, _HOST_BYTES) or (len(last) < len(headers) and len(_all_of(b"host", headers)) > 1):
        return BAD_HOST  # RFC 9112, section 3.2
    return _refusal_of_coding(_all_of(b"transfer-encoding", headers)) if b"transfer-encoding" in last else None


def _refusal_of_coding(values: list[bytes]) -> ProtocolError | None:
    """Return 501 for an unsupported coding, and 400 if the body's end is undefined (RFC 9112, sections 6.1, 6.3)."""
    codings = [coding.strip().lower() for coding in b",".join(values).split(b",")]
    if codings == [b"chunked"]:
        return None
    return BAD_HTTP if b"chunked" in codings[:-1] or b"" in codings else UNSUPPORTED_CODING


def _all_of(name: bytes, headers: Headers) -> list[bytes]:
    return [value for other, value in headers if other == name]


def head_without_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """Return the bytes of a request's head without its `Upgrade` header, which a server may ignore."""
    lines = [b"%b: %b\r\n" % header for header in headers if header[0] != b"upgrade"]
    return b"%b %b HTTP/%b\r\n%b\r\n" % (method, target, version.encode(), b"".join(lines))


def size_of_head(target: bytes, headers: Headers) -> int:
    """Return the bytes of a head's target, names and values."""
    return len(target) + sum(len(name) + len(value) for name, value in headers)
