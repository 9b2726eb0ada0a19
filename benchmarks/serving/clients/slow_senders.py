"""Clients that send a byte a second and never finish: `slow_senders.py PORT CLIENTS SECONDS`.

Half of them stall in the head of a request, half in the body of one. Prints, as JSON, how many seconds the server let
each of them go on; null for those that it never sent away. A separate process, so that no other client is delayed.
"""

import json
import selectors
import socket
import sys
import time
from dataclasses import dataclass

_HEAD = b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nX-Padding: " + b"x" * 10_000
_BODY_HEAD = b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: 100000\r\n\r\n"
_PAUSE_S = 1.0


@dataclass(slots=True)
class _Client:
    socket: socket.socket
    is_in_head: bool
    began_at: float
    next_at: float
    sent: int = 0
    lasted_s: float | None = None

    def send_a_byte(self) -> None:
        try:
            self.socket.send(_HEAD[self.sent : self.sent + 1] if self.is_in_head else b"x")
        except OSError:
            self.end()
        self.sent += 1
        self.next_at += _PAUSE_S

    def is_ended_by_server(self) -> bool:
        """Read what the server says, a refusal perhaps; the end is what counts."""
        try:
            return not self.socket.recv(65_536)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def end(self) -> None:
        self.lasted_s = time.perf_counter() - self.began_at
        self.socket.close()


def run(port: int, count: int, seconds: float) -> dict[str, list[float | None]]:
    """Return how long each client of either kind lasted, in seconds."""
    begins_at = time.perf_counter()
    clients = [_connect(port, number % 2 == 0, begins_at + number / count * _PAUSE_S) for number in range(count)]
    waiting = selectors.DefaultSelector()
    for client in clients:
        waiting.register(client.socket, selectors.EVENT_READ, client)
    while (now := time.perf_counter()) < begins_at + seconds and waiting.get_map():
        for key, _ in waiting.select(0.02):
            if key.data.is_ended_by_server():
                waiting.unregister(key.fileobj)
                key.data.end()
        for client in clients:
            if client.lasted_s is None and client.next_at <= now:
                client.send_a_byte()
                if client.lasted_s is not None:
                    waiting.unregister(client.socket)
    waiting.close()
    for client in clients:
        client.socket.close()
    return {
        "head": [client.lasted_s for client in clients if client.is_in_head],
        "body": [client.lasted_s for client in clients if not client.is_in_head],
    }


def _connect(port: int, is_in_head: bool, begins_at: float) -> _Client:
    connection = socket.create_connection(("127.0.0.1", port))
    began_at = time.perf_counter()
    if not is_in_head:
        connection.sendall(_BODY_HEAD)
    connection.setblocking(False)
    return _Client(connection, is_in_head, began_at, begins_at)


if __name__ == "__main__":
    json.dump(run(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])), sys.stdout)
