"""A receiver of traces on a real socket: keeps each export, and answers as it is set to."""

import http.server
import json
import threading
from typing import Any


class CollectorServer:
    """A context manager; `spans` has everything that was accepted, by the order of arrival."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.exports: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.has_arrived = threading.Condition()
        self.may_answer = threading.Event()
        self.may_answer.set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer._take(self)

            def log_message(self, *_: Any) -> None:
                """No line for each request."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "CollectorServer":
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.may_answer.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        with self.has_arrived:
            self.paths.append(request.path)
            self.headers.append({name.lower(): value for name, value in request.headers.items()})
            self.exports.append(json.loads(body))
            self.has_arrived.notify_all()
        self.may_answer.wait(30)
        request.send_response(self.status)
        request.send_header("Content-Length", "2")
        request.end_headers()
        request.wfile.write(b"{}")

    def spans(self) -> list[dict[str, Any]]:
        return [
            span
            for export in self.exports
            for resource in export["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]

    def wait_for_spans(self, count: int) -> list[dict[str, Any]]:
        """Return the spans once there are so many. Fails after 20 s."""
        with self.has_arrived:
            assert self.has_arrived.wait_for(lambda: len(self.spans()) >= count, 20), f"{len(self.spans())} spans"
        return self.spans()

    def wait_for_exports(self, count: int) -> None:
        """Return once so many exports have arrived, accepted or not. Fails after 20 s."""
        with self.has_arrived:
            assert self.has_arrived.wait_for(lambda: len(self.exports) >= count, 20)
