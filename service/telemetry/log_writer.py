"""A thread that writes log lines to stderr, so that a slow reader never blocks a request.

Lines that exceed the buffer while the reader is slow are dropped and counted. The thread starts with the first line
of each process, because threads do not survive a fork.
"""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator

_MOST_LINES = 8192
_PAUSE_S = 0.05  # between two rounds: a wake-up for each line would cost more than the line
_ATOMIC_BYTES = 4096  # of a pipe: a write up to this size does not mix with lines of other processes
_FLUSH_S = 0.5
_LOOK_S = 0.005


class LogWriter:
    """Writes to a file descriptor."""

    def __init__(self, descriptor: int = 2, most_lines: int = _MOST_LINES) -> None:
        self._descriptor = descriptor
        self._most_lines = most_lines
        self.dropped = 0
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._lines: deque[bytes] = deque()
        self._is_writing = False
        self._has_lines, self._hurry = threading.Event(), threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def put(self, line: bytes) -> None:
        """Queue a line, with its line end, for writing."""
        if len(self._lines) >= self._most_lines:
            self.dropped += 1
            return
        self._lines.append(line)
        if self._thread is None:
            self._start()
        if not self._has_lines.is_set():
            self._has_lines.set()

    def flush(self) -> None:
        """Wait for a short time until all lines are written."""
        deadline = time.monotonic() + _FLUSH_S
        self._hurry.set()
        while (self._lines or self._is_writing) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        self._hurry.clear()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            self._has_lines.wait()
            self._is_writing = True
            self._has_lines.clear()
            with contextlib.suppress(OSError):  # the reader has closed stderr
                for piece in _pieces(self._taken()):
                    _write(self._descriptor, piece)
            self._is_writing = False
            self._hurry.wait(_PAUSE_S)

    def _taken(self) -> Iterator[bytes]:
        while self._lines:
            yield self._lines.popleft()


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines up to the size of an atomic write."""
    piece = b""
    for line in lines:
        if piece and len(piece) + len(line) > _ATOMIC_BYTES:
            yield piece
            piece = b""
        piece += line
    if piece:
        yield piece


def _write(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
