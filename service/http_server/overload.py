"""Overload control of all connections of a process: early refusals, and delays for clients that retry at once."""

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

_IMMEDIATE_RETRY_S = 0.01  # a client that sends its next request so soon after a refusal ignores Retry-After
_LONGEST_PASS_S = 0.05  # of the event loop, that counts
_FULL_S = 0.0005  # a fraction of a batch, and many times the cost of a check of the queue
_PAUSE_S = 0.2
_TICK_S = 0.01
_MOST_RESUMED = 16  # connections a tick that resume early because there is capacity again
_MAX_PAUSED = 1024  # connections; further data of their clients stays in the kernel's buffers
_NEEDS_ADMISSION = (b"expect", b"transfer-encoding")

DefaultHeaders = list[tuple[bytes, bytes]]
HasCapacity = Callable[[int], bool]  # whether one more request has capacity after this number of others


class PausedConnection(Protocol):
    """A connection whose request is delayed."""

    def end_pause(self) -> None:
        """Handle the request now."""


class OverloadControl:
    """Refuses requests from their heads, and delays the requests of clients that retry at once.

    Without a delay, clients that repeat a refused request at once would use the CPU time of the requests that are
    served. A delay ends early when there is capacity again.
    """

    def __init__(
        self,
        has_capacity: HasCapacity,
        refusals: EarlyRefusals | None = None,
        *,
        immediate_retry_s: float = _IMMEDIATE_RETRY_S,
    ) -> None:
        self._has_capacity = has_capacity
        self._admitted = 0  # requests that were passed to the application and are not in the queue yet
        self._full_until = -math.inf  # monotonic seconds; the queue counts as full until then
        self._base_retry_s = self.immediate_retry_s = immediate_retry_s
        self._pass_began: float | None = None  # monotonic seconds, of the first refusal in this pass of the event loop
        self._refusals = refusals
        self._parser = WholeRequestParser()
        # (monotonic end of the pause, connection), in this order: pauses for capacity, and for deadlines.
        self._paused: deque[tuple[float, PausedConnection]] = deque()
        self._paused_for_deadline: deque[tuple[float, PausedConnection]] = deque()
        self._timer: TimerHandle | None = None
        self._default_headers: DefaultHeaders = []
        self._default_lines = b""

    def has_capacity(self, now: float) -> bool:
        """Return whether the queue would accept one more request after the admitted ones.

        `now` is in monotonic seconds.
        """
        if now < self._full_until:
            return False
        if self._has_capacity(self._admitted):
            return True
        self._full_until = now + _FULL_S
        return False

    def count_admitted(self, loop: AbstractEventLoop) -> None:
        """Count a request that the application submits to the queue within the next pass of the event loop."""
        if self._admitted == 0:
            loop.call_soon(loop.call_soon, self._reset_admitted)
        self._admitted += 1

    def _reset_admitted(self) -> None:
        self._admitted = 0

    def note_refusal(self, loop: AbstractEventLoop, now: float) -> None:
        """Measure how long this pass of the event loop takes, from its first refusal at `now` (monotonic seconds).

        A retry waits in its socket until the event loop has ended this pass, and in the next one for other requests.
        A retry that comes late for this reason alone is still an immediate one.
        """
        if self._pass_began is None and self._base_retry_s > 0:
            self._pass_began = now
            loop.call_soon(self._end_pass)

    def _end_pass(self) -> None:
        if self._pass_began is not None:
            pass_s = min(_LONGEST_PASS_S, time.monotonic() - self._pass_began)
            self.immediate_retry_s = self._base_retry_s + 2 * pass_s
            self._pass_began = None

    def refusal(
        self, data: bytes, default_headers: DefaultHeaders, *, is_last: bool = False
    ) -> tuple[bytes, bool] | None:
        """Return the refusal of the request in `data`, and whether the connection closes after it: always if `is_last`.

        Returns None unless `data` is exactly one valid request to an inference route. The application then answers.
        """
        if self._refusals is None or not self._parser.parse(data):
            return None
        headers = dict(self._parser.headers)
        if not _is_plain(headers, self._parser.headers, len(data)):
            return None
        closes = is_last or not self._parser.is_kept_alive
        lines = self._lines(default_headers)
        response = self._refusals.response(self._parser.target, headers, closes=closes, fixed_lines=lines)
        return None if response is None else (response, closes)

    def _lines(self, default_headers: DefaultHeaders) -> bytes:
        if default_headers is not self._default_headers:  # uvicorn makes a new list every second
            self._default_headers = default_headers
            self._default_lines = b"".join(b"%b: %b\r\n" % header for header in default_headers)
        return self._default_lines

    def pause(self, loop: AbstractEventLoop, connection: PausedConnection, *, for_deadline: bool) -> bool:
        """Delay a connection, then call its `end_pause`. Return False if too many connections are paused.

        A pause for capacity ends early when there is capacity. `for_deadline` marks a client whose last request had a
        deadline that could not be met. Capacity does not change that, so its pause lasts the full 0.2 s.
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
    """Return whether a head is valid, repeats no header, and needs neither `100 Continue` nor chunk decoding."""
    if len(last) != len(headers) or len(headers) > MAX_HEADERS or any(name in last for name in _NEEDS_ADMISSION):
        return False
    length = last.get(b"content-length", b"0")
    if not length.isdigit() or size - int(length) > MAX_HEAD_BYTES:
        return False
    return refusal_of_head(b"POST", "1.1", headers, last) is None
