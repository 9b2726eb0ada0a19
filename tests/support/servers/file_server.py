"""A web server on 127.0.0.1 with one file, and the bad manners that a test asks for."""

import contextlib
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any


class FileServer(ThreadingHTTPServer):
    """Serves `content` under every path, and keeps the headers of the requests."""

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.content = content
        self.etag: str | None = '"one"'
        self.knows_ranges = True
        self.says_length = True
        self.cut_after: list[int] = []  # bytes of the body, for the next answers, one each
        self.redirect: str | None = None
        self.status: int | None = None
        self.gate: threading.Event | None = None  # what an answer waits for before its body
        self.has_asked = threading.Event()
        self.requests: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def serving(content: bytes) -> Iterator[FileServer]:
    """Run a server until the end of the block."""
    with FileServer(content) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Answers(BaseHTTPRequestHandler):
    server: FileServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        server.requests.append({name.lower(): value for name, value in self.headers.items()})
        server.has_asked.set()
        self.close_connection = True
        if server.redirect is not None and not self.path.endswith("/there"):
            return self._send(302, b"", {"Location": server.redirect})
        if server.status is not None:
            return self._send(server.status, b"")
        start = self._start()
        if start >= len(server.content) > 0:
            return self._send(416, b"")
        headers = {} if server.etag is None else {"ETag": server.etag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
        return self._send(206 if start else 200, server.content[start:], headers)

    def _start(self) -> int:
        wanted = self.headers.get("Range")
        if wanted is None or not self.server.knows_ranges:
            return 0
        if self.headers.get("If-Range") not in (None, self.server.etag):
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def _send(self, status: int, body: bytes, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.server.gate is not None:
            self.server.gate.wait(30)
        if body and self.server.cut_after:
            body = body[: self.server.cut_after.pop(0)]
        with contextlib.suppress(OSError):  # the client may hang up
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass
