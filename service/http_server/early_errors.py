"""How a connection itself answers what never becomes a request: no valid HTTP, a head too large, a client too slow."""

from dataclasses import dataclass

from service.http.client_errors import client_error
from service.http.error_format import is_v2, v2_error
from service.http.error_responses import MEDIA_TYPE, problem_body

MAX_HEAD_BYTES = 64 * 1024  # the request line and the headers together
MAX_HEADERS = 256  # lines of them, and of trailers


@dataclass(frozen=True, slots=True)
class ProtocolError:
    """An answer of the connection itself, to what never became a request."""

    status: int
    code: str
    title: str
    detail: str
    further_lines: bytes = b""  # of the answer's head

    def answer(self, path: str, identity: bytes) -> bytes:
        """Return the whole answer, in the language of the path."""
        media_type, body = MEDIA_TYPE, problem_body(self.status, self.code, self.title, self.detail)
        of_client = v2_error(self.detail) if is_v2(path) else client_error(path, self.status, self.code, self.detail)
        if of_client is not None:
            media_type, body = "application/json", of_client
        return (
            b"HTTP/1.1 %d %b\r\n"
            b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\nx-request-id: %b\r\n"
            b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n%b\r\n%b"
        ) % (self.status, self.title.encode(), media_type.encode(), len(body), identity, self.further_lines, body)


BAD_HTTP = ProtocolError(400, "bad_http", "Bad request", "The request is not valid HTTP.")
BAD_HOST = ProtocolError(
    400, "bad_host", "Bad request", "A request of HTTP/1.1 must have exactly one Host header, with a valid name."
)
TINY_CHUNKS = ProtocolError(
    400, "tiny_chunks", "Bad request", "The body comes in too many tiny chunks; send chunks of at least 64 bytes."
)
NO_TUNNELS = ProtocolError(
    405,
    "method_not_allowed",
    "Method not allowed",
    "This server is no proxy: CONNECT is not supported; Allow names the methods that are.",
    b"allow: GET, HEAD, POST\r\n",
)
TOO_SLOW = ProtocolError(408, "request_timeout", "Request timeout", "The request did not arrive in time.")
TOO_LARGE = ProtocolError(
    431,
    "header_too_large",
    "Request header fields too large",
    f"The path and the headers together may have at most {MAX_HEAD_BYTES // 1024} KiB ({MAX_HEAD_BYTES:,} bytes) "
    f"and {MAX_HEADERS} lines.",
)
UNKNOWN_CODING = ProtocolError(
    501,
    "unknown_transfer_coding",
    "Not implemented",
    "The only supported Transfer-Encoding is chunked; name a compression of the body in Content-Encoding.",
)
TOO_MUCH_AHEAD = ProtocolError(
    503,
    "overloaded",
    "Overloaded",
    "Clients have sent too many requests ahead; wait for answers before sending more.",
    b"retry-after: 1\r\n",
)
NO_CONNECTION_LEFT = ProtocolError(
    503,
    "too_many_connections",
    "Too many connections",
    "All connections of this server are in use; try again a little later.",
    b"retry-after: 1\r\n",
)
UNKNOWN_VERSION = ProtocolError(
    505,
    "unknown_http_version",
    "HTTP version not supported",
    "This server supports HTTP/1.1 and HTTP/1.0; send one of these versions in the request line.",
)
