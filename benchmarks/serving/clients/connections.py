"""Many HTTP/1.1 connections in one thread, as cheap as Python allows: plain sockets and epoll.

The load shares the machine with the server, so each microsecond here is one that the server does not get: requests are
ready-made bytes, and of an answer only the status, the length, Retry-After and the labels are looked at.
"""

import math
import re
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.serving.clients.figures import BROKEN

RESTED_S = 0.25  # since the last refusal: a server may pause a connection that it has just refused
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_PIECE = 65_536


@dataclass(frozen=True, slots=True)
class Question:
    """One request, head and body, and what the labels in its answer have to look like."""

    request: bytes
    expected: re.Pattern[bytes]


class Connection:
    """One client. `scheduled_at` and `refused_at` are clock readings."""

    __slots__ = ("is_busy", "is_stuck", "question", "received", "refused_at", "scheduled_at", "socket", "unsent")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex(address)
        self.question: Question | None = None
        self.unsent = memoryview(b"")
        self.received = b""
        self.scheduled_at = 0.0
        self.refused_at = -math.inf
        self.is_busy = False
        self.is_stuck = False  # has something to send that does not go yet


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of the server. Status 0: it broke the connection instead."""

    status: int
    is_right: bool
    retry_after_s: int | None
    closes: bool


_SILENCE = Answer(BROKEN, False, None, True)


class Connections:
    """All connections to one server. `on_answer` is called with each answer, and may ask again at once."""

    def __init__(self, address: tuple[str, int], on_answer: Callable[[Connection, Answer], None]) -> None:
        self._address = address
        self._on_answer = on_answer
        self._poll = select.epoll()
        self._open: dict[int, Connection] = {}

    def __len__(self) -> int:
        return len(self._open)

    def open(self) -> Connection:
        """Return a new connection; it may be used at once."""
        connection = Connection(self._address)
        self._open[connection.socket.fileno()] = connection
        self._poll.register(connection.socket, select.EPOLLIN)
        return connection

    def ask(self, connection: Connection, question: Question, scheduled_at: float) -> None:
        """Send a request, as far as it goes at once."""
        connection.question, connection.scheduled_at = question, scheduled_at
        rest = connection.unsent  # of a request that was refused before its end: the server expects it first
        connection.unsent = memoryview(bytes(rest) + question.request if rest else question.request)
        connection.received, connection.is_busy = b"", True
        self._send(connection)

    def wait(self, seconds: float) -> None:
        """Handle what comes within that time, or return early with what has come."""
        if seconds > 0:
            select.select([self._poll], [], [], seconds)  # epoll's own timeout counts in milliseconds
        for number, event in self._poll.poll(0):
            connection = self._open.get(number)
            if connection is None:
                continue  # closed a moment ago, in this very round
            if event & select.EPOLLOUT:
                self._send(connection)
            if event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                self._receive(connection)

    def close(self) -> None:
        """Close everything."""
        for connection in list(self._open.values()):
            self._forget(connection)
        self._poll.close()

    def is_open(self, connection: Connection) -> bool:
        """Whether it can still send requests."""
        return connection.socket.fileno() in self._open

    def _send(self, connection: Connection) -> None:
        try:
            sent = connection.socket.send(connection.unsent)
        except BlockingIOError:
            sent = 0  # not connected yet, or the buffer is full
        except OSError:
            sent = len(connection.unsent)  # the other side is gone; what it may have said before is still to be read
        connection.unsent = connection.unsent[sent:]
        if bool(connection.unsent) is not connection.is_stuck:
            connection.is_stuck = not connection.is_stuck
            self._poll.modify(connection.socket, select.EPOLLIN | (select.EPOLLOUT if connection.is_stuck else 0))

    def _receive(self, connection: Connection) -> None:
        try:
            piece = connection.socket.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._settle(connection, _SILENCE)
            return
        connection.received += piece
        if connection.is_busy and (answer := _read_answer(connection)) is not None:
            self._settle(connection, answer)

    def _settle(self, connection: Connection, answer: Answer) -> None:
        was_busy, connection.is_busy = connection.is_busy, False
        if answer.closes:
            self._forget(connection)
        if was_busy:
            self._on_answer(connection, answer)

    def _forget(self, connection: Connection) -> None:
        self._open.pop(connection.socket.fileno(), None)
        connection.socket.close()


def _read_answer(connection: Connection) -> Answer | None:
    """Return the answer once it is complete."""
    data = connection.received
    head_ends = data.find(b"\r\n\r\n")
    if head_ends < 0:
        return None
    length = _LENGTH.search(data, 0, head_ends)
    if length is None or len(data) < head_ends + 4 + int(length[1]):
        return None
    status = int(_STATUS.match(data)[1])  # type: ignore[index]
    retry_after = _RETRY_AFTER.search(data, 0, head_ends)
    return Answer(
        status,
        status == 200
        and connection.question is not None
        and bool(connection.question.expected.search(data, head_ends)),
        int(retry_after[1]) if retry_after else None,
        bool(_CLOSES.search(data, 0, head_ends)),
    )


clock = time.perf_counter
