"""An HTTP server with known answers, for testing what measures servers: a thread a connection, and no clock."""

import contextlib
import re
import socketserver
import threading
from collections.abc import Callable, Iterator

from benchmarks.serving.clients.connections import Question
from benchmarks.serving.servers.workload import answer_pattern

RIGHT = b'{"predictions": [{"label": "cat", "index": 3, "probability": 0.9}, {"label": "dog", "index": 5}]}'
WRONG = RIGHT.replace(b"cat", b"bird")
QUESTION = Question(
    b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nimage",
    re.compile(answer_pattern(("cat", "dog"), re.escape).encode()),
)


def answer(body: bytes = RIGHT, status: str = "200 OK", *headers: str) -> bytes:
    """Return a whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextlib.contextmanager
def fake_server(respond: Callable[[int], bytes]) -> Iterator[tuple[str, int]]:
    """Serve until the block ends; `respond` gets the number of the request, from 0, and may wait; b"" hangs up."""
    lock, numbers = threading.Lock(), iter(range(1_000_000))

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):
                while self._read_request():
                    with lock:
                        number = next(numbers)
                    said = respond(number)
                    if not said:
                        return
                    self.wfile.write(said)

        def _read_request(self) -> bool:
            length = 0
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            return bool(line) and len(self.rfile.read(length)) == length

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        request_queue_size = 256

    with Server(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield ("127.0.0.1", server.server_address[1])
        finally:
            server.shutdown()
