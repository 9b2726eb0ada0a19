"""How a connection itself answers what never becomes a request: no valid HTTP, a head too large, a client too slow."""

from dataclasses import dataclass

from service.dialect import is_v2, v2_error
from service.problem import MEDIA_TYPE, problem_body

MAX_HEAD_BYTES = 64 * 1024  # the request line and the headers together


@dataclass(frozen=True, slots=True)
class WireRefusal:
    """An answer of the connection itself, to what never became a request."""

    status: int
    code: str
    title: str
    detail: str

    def answer(self, path: str, identity: bytes) -> bytes:
        """Return the whole answer, in the language of the path."""
        media_type, body = MEDIA_TYPE, problem_body(self.status, self.code, self.title, self.detail)
        if is_v2(path):
            media_type, body = "application/json", v2_error(self.detail)
        return (
            b"HTTP/1.1 %d %b\r\n"
            b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\nx-request-id: %b\r\n"
            b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n\r\n%b"
        ) % (self.status, self.title.encode(), media_type.encode(), len(body), identity, body)


BAD_HTTP = WireRefusal(400, "bad_http", "Bad request", "The request is not valid HTTP.")
TOO_LARGE = WireRefusal(
    431,
    "header_too_large",
    "Request header fields too large",
    f"The path and the headers together may have at most {MAX_HEAD_BYTES // 1024} KiB ({MAX_HEAD_BYTES:,} bytes).",
)
TOO_SLOW = WireRefusal(408, "request_timeout", "Request timeout", "The request did not arrive in time.")
