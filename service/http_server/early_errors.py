"""Error responses that the connection sends before a request reaches the application.

Their causes are invalid HTTP, a head that is too large, a client that is too slow, and a lack of connections.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from service.http.client_errors import client_error
from service.http.error_format import is_v2, v2_error
from service.http.error_responses import MEDIA_TYPE, problem_body

MAX_HEAD_BYTES = 64 * 1024  # the request line and the headers together
MAX_HEADERS = 256  # lines of them, and of trailers


# Returns the CORS headers of a response to a request with these headers.
CorsHeaders = Callable[[Mapping[bytes, bytes]], list[tuple[bytes, bytes]]]


def no_cors_headers(_: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    """Return none: the default `CorsHeaders`."""
    return []


@dataclass(frozen=True, slots=True)
class ProtocolError:
    """An error response of the connection itself. It closes the connection."""

    status: int
    code: str
    title: str
    detail: str
    further_lines: bytes = b""  # additional header lines of the response, each with its CRLF

    def answer(self, path: str, identity: bytes, headers: Sequence[tuple[bytes, bytes]] = ()) -> bytes:
        """Return the whole HTTP response, in the error format of the path's protocol.

        `identity` is the request id. `headers` are added to those that every response has.
        """
        media_type, body = MEDIA_TYPE, problem_body(self.status, self.code, self.title, self.detail)
        of_client = v2_error(self.detail) if is_v2(path) else client_error(path, self.status, self.code, self.detail)
        if of_client is not None:
            media_type, body = "application/json", of_client
        lines = self.further_lines + b"".join(b"%b: %b\r\n" % header for header in headers)
        return (
            b"HTTP/1.1 %d %b\r\n"
            b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\nx-request-id: %b\r\n"
            b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n%b\r\n%b"
        ) % (self.status, self.title.encode(), media_type.encode(), len(body), identity, lines, body)


def without_content(response: bytes) -> bytes:
    """Return the head of a response: that to HEAD has no content (RFC 9110, section 9.3.2)."""
    head, end, _ = response.partition(b"\r\n\r\n")
    return head + end


BAD_HTTP = ProtocolError(400, "bad_http", "Bad request", "The request is not valid HTTP.")
BAD_HOST = ProtocolError(
    400, "bad_host", "Bad request", "An HTTP/1.1 request must have exactly one Host header, with a valid host name."
)
TINY_CHUNKS = ProtocolError(
    400, "tiny_chunks", "Bad request", "The body has too many tiny chunks; send chunks of at least 64 bytes."
)
CONNECT_NOT_SUPPORTED = ProtocolError(
    405,
    "method_not_allowed",
    "Method not allowed",
    "CONNECT is not supported; see the Allow header.",
    b"allow: GET, HEAD, POST\r\n",
)
TOO_SLOW = ProtocolError(408, "request_timeout", "Request timeout", "The request did not arrive in time.")
TOO_LARGE = ProtocolError(
    431,
    "header_too_large",
    "Request header fields too large",
    f"The request line and the headers may have at most {MAX_HEAD_BYTES // 1024} KiB ({MAX_HEAD_BYTES:,} bytes) "
    f"and {MAX_HEADERS} lines.",
)
UNSUPPORTED_CODING = ProtocolError(
    501,
    "unknown_transfer_coding",
    "Not implemented",
    "The only supported Transfer-Encoding is chunked; declare compression of the body in Content-Encoding.",
)
PIPELINE_TOO_LARGE = ProtocolError(
    503,
    "overloaded",
    "Overloaded",
    "Too many pipelined requests are buffered; wait for responses before sending more.",
    b"retry-after: 1\r\n",
)
TOO_MANY_CONNECTIONS = ProtocolError(
    503,
    "too_many_connections",
    "Too many connections",
    "All connections of this server are in use; try again a little later.",
    b"retry-after: 1\r\n",
)
UNSUPPORTED_VERSION = ProtocolError(
    505,
    "unknown_http_version",
    "HTTP version not supported",
    "This server supports HTTP/1.1 and HTTP/1.0; send one of these versions in the request line.",
)
