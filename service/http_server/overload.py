"""What connections do with requests while there is no capacity: an early refusal, and pauses for clients that insist.

One object serves all connections of a process.
"""

import math
import time
from asyncio import AbstractEventLoop, TimerHandle
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from service.http.early_refusals import EarlyRefusals
from service.http_server.early_errors import MAX_HEAD_BYTES, MAX_HEADERS
from service.http_server.request_head import refusal_of_head
from service.http_server.whole_requests import WholeRequestParser

_INSISTS_S = 0.005  # a client that sends its next request so soon after a refusal does not heed Retry-After
_FULL_S = 0.0005  # a fraction of a batch, and many times what asking the queue takes
_PAUSE_S = 0.2
_TICK_S = 0.01
_MOST_RESUMED = 16  # connections a tick, where capacity has come back before their time
_MAX_PAUSED = 1024  # connections; what their clients send further waits in the kernel's memory
_NEEDS_ADMISSION = (b"expect", b"transfer-encoding")

DefaultHeaders = list[tuple[bytes, bytes]]
HasCapacity = Callable[[int], bool]  # for one more request after so many others


class PausedConnection(Protocol):
    """A connection whose request waits for the end of its pause."""

    def end_pause(self) -> None:
        """Handle the request now."""


class OverloadControl:
    """Refuses requests from their heads, and delays those of clients that repeat them at once.

    Without a delay, clients that repeat a refused request at once would use the CPU time of the requests that are
    served. A delay ends early when there is capacity again.
    """

    def __init__(
        self, has_capacity: HasCapacity, refusals: EarlyRefusals | None = None, *, insists_s: float = _INSISTS_S
    ) -> None:
        self._has_capacity = has_capacity
        self._coming = 0  # requests that were let through and are not in the queue yet
        self._full_until = -math.inf  # monotonic seconds; the queue is not asked again before
        self.insists_s = insists_s
        self._refusals = refusals
        self._parser = WholeRequestParser()
        # Due times and connections, in the order of the pauses' ends: for capacity, and for deadlines.
        self._paused: deque[tuple[float, PausedConnection]] = deque()
        self._paused_for_deadline: deque[tuple[float, PausedConnection]] = deque()
        self._timer: TimerHandle | None = None
        self._default_headers: DefaultHeaders = []
        self._default_lines = b""

    def has_capacity(self, now: float) -> bool:
        """Return whether the queue would accept one more request, after those that are on their way to it.

        `now` is in monotonic seconds.
        """
        if now < self._full_until:
            return False
        if self._has_capacity(self._coming):
            return True
        self._full_until = now + _FULL_S
        return False

    def let_through(self, loop: AbstractEventLoop) -> None:
        """Note that a request goes to the application, which submits it within the next pass of the event loop."""
        if self._coming == 0:
            loop.call_soon(loop.call_soon, self._forget_coming)
        self._coming += 1

    def _forget_coming(self) -> None:
        self._coming = 0

    def refusal(self, data: bytes, default_headers: DefaultHeaders) -> tuple[bytes, bool] | None:
        """Return the response to what a connection has read, and whether it ends the connection.

        None: `data` is not exactly one valid request to an inference route, so the usual way has to answer it.
        """
        if self._refusals is None or not self._parser.parse(data):
            return None
        headers = dict(self._parser.headers)
        if not _is_plain(headers, self._parser.headers, len(data)):
            return None
        closes = not self._parser.is_kept_alive
        lines = self._lines(default_headers)
        response = self._refusals.response(self._parser.target, headers, closes=closes, fixed_lines=lines)
        return None if response is None else (response, closes)

    def _lines(self, default_headers: DefaultHeaders) -> bytes:
        if default_headers is not self._default_headers:  # uvicorn makes a new list every second
            self._default_headers = default_headers
            self._default_lines = b"".join(b"%b: %b\r\n" % header for header in default_headers)
        return self._default_lines

    def pause(self, loop: AbstractEventLoop, connection: PausedConnection, *, for_deadline: bool) -> bool:
        """Call the connection's `end_pause` after the pause. Return False if too many connections are paused.

        A pause for capacity ends as soon as there is some. With `for_deadline` the client's last request had a deadline
        that could not be met, which does not depend on capacity, so the pause lasts its full time.
        """
        paused = self._paused_for_deadline if for_deadline else self._paused
        if len(paused) >= _MAX_PAUSED:
            return False
        paused.append((time.monotonic() + _PAUSE_S, connection))
        if self._timer is None:
            self._timer = loop.call_later(_TICK_S, self._tick, loop)
        return True

    def _tick(self, loop: AbstractEventLoop) -> None:
        now, resumed = time.monotonic(), 0
        while self._paused and (self._paused[0][0] <= now or (resumed < _MOST_RESUMED and self.has_capacity(now))):
            self._paused.popleft()[1].end_pause()
            resumed += 1
        while self._paused_for_deadline and self._paused_for_deadline[0][0] <= now:
            self._paused_for_deadline.popleft()[1].end_pause()
        is_needed = self._paused or self._paused_for_deadline
        self._timer = loop.call_later(_TICK_S, self._tick, loop) if is_needed else None


def _is_plain(last: Mapping[bytes, bytes], headers: list[tuple[bytes, bytes]], size: int) -> bool:
    """Return whether a head has no repeated header, nothing that needs a further exchange, and no fault."""
    if len(last) != len(headers) or len(headers) > MAX_HEADERS or any(name in last for name in _NEEDS_ADMISSION):
        return False
    length = last.get(b"content-length", b"0")
    if not length.isdigit() or size - int(length) > MAX_HEAD_BYTES:
        return False
    return refusal_of_head(b"POST", "1.1", headers, last) is None
