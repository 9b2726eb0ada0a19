"""uvicorn's HTTP protocol, with a limit on the head of a request and this server's own words where uvicorn has its own.

Neither uvicorn nor its parser limits a head, and the parser copies an unfinished header anew for each piece that comes:
31 MB of one header cost 1.4 s on the event loop. So bytes are counted until the head is complete.
"""

from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.problem import MEDIA_TYPE, problem_body

MAX_HEAD_BYTES = 64 * 1024  # the request line and the headers together
_DISCARD_BYTES = 64 * 1024  # read after a refusal, so that the client sees it and not a reset
_DISCARD_S = 1.0


def _refusal(status: int, code: str, title: str, detail: str) -> bytes:
    body = problem_body(status, code, title, detail)
    return (
        b"HTTP/1.1 %d %b\r\n"
        b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n"
        b"cache-control: no-store\r\nx-content-type-options: nosniff\r\n\r\n%b"
    ) % (status, title.encode(), MEDIA_TYPE.encode(), len(body), body)


_BAD_HTTP = _refusal(400, "bad_http", "Bad request", "The request is not valid HTTP.")
_TOO_LARGE = _refusal(
    431,
    "header_too_large",
    "Request header fields too large",
    f"The path and the headers together may have at most {MAX_HEAD_BYTES // 1024} KiB ({MAX_HEAD_BYTES:,} bytes).",
)


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._is_in_head = True
        self._head_bytes = 0  # of a head that is not complete yet
        self._refusal: bytes | None = None  # once set, nothing that comes is parsed any more
        self._discarded = 0

    @property
    def is_silent(self) -> bool:
        """Whether the client has connected and not asked for anything yet."""
        return self.cycle is None

    def data_received(self, data: bytes) -> None:
        """Parse what came, in pieces so small that a head cannot grow far beyond its limit within one."""
        for start in range(0, len(data), MAX_HEAD_BYTES):
            piece = data[start : start + MAX_HEAD_BYTES]  # the whole is not copied
            if self._refusal is not None:
                self._discard(piece)
                return
            if self._is_in_head:
                self._head_bytes += len(piece)
            super().data_received(piece)
            if self._is_in_head and self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_TOO_LARGE)

    def on_headers_complete(self) -> None:
        """Begin a request whose head has the right size."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._refuse(_TOO_LARGE)
            raise ValueError(f"a head of {size} bytes, above {MAX_HEAD_BYTES}")  # stops the parser, and goes no further
        self._is_in_head, self._head_bytes = False, 0
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request: what comes next is a head."""
        self._is_in_head = True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request, or with the refusal that waited for this answer."""
        super().on_response_complete()
        if self._refusal is not None and self.cycle.response_complete:
            self._send_refusal(self._refusal)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP."""
        self._refuse(_BAD_HTTP)

    def _refuse(self, refusal: bytes) -> None:
        if self._refusal is not None:
            return
        self._refusal = refusal
        is_first_in_line = self.cycle is None or self.cycle.response_complete or not self._is_in_head
        if is_first_in_line:
            self._send_refusal(refusal)

    def _send_refusal(self, refusal: bytes) -> None:
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self.transport.write(refusal)
        self.loop.call_later(_DISCARD_S, self.transport.close)

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > _DISCARD_BYTES:
            self.flow.pause_reading()  # the client has its moment to look; then the connection closes
