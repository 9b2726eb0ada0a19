"""Limits on the time that a client takes, and the timers of a connection that enforce them.

uvicorn has no timeout for a slow request or a slowly read response.
"""

import asyncio
import math
import random
from dataclasses import dataclass
from typing import Any

from service.http_server.early_errors import TOO_SLOW
from service.http_server.parser import ParsingProtocol, Part

_BODY = Part.BODY
_JITTER = 0.1  # so that clients that connected together do not reconnect together


@dataclass(frozen=True, slots=True)
class ClientTimeouts:
    """Limits on the time that a client takes for each part of an exchange."""

    head_s: float = 5.0  # from connecting, or from the first byte of a later request, to the end of its headers
    body_s: float = 30.0  # for the whole body
    body_start_s: float = 5.0  # grace period before the minimum rate of the body applies
    least_bytes_per_s: int = 16 * 1024
    reading_s: float = 30.0  # for the client to read the response, once the send buffers are full
    # A later response closes the connection, so that the client connects again, maybe to another server.
    connection_age_s: float = math.inf

    def last_response_from(self, now: float) -> float:
        """Return the time from which on a response closes a connection that begins now: its age, within 10%."""
        return now + self.connection_age_s * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  # no secret


class TimedProtocol(ParsingProtocol):
    """The timers of a connection: for the part that the client sends next, for its reading, and between requests."""

    def __init__(self, *arguments: Any, timeouts: ClientTimeouts | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timeouts = timeouts or ClientTimeouts()
        self._has_requested = False  # at least the first byte of a request
        self._part_began = 0.0
        self._last_from = math.inf  # time of the event loop from which on a response closes the connection
        self._read_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timeout of the first request."""
        super().connection_made(transport)
        self._idle[self] = None
        self._last_from = self._timeouts.last_response_from(self.loop.time())
        self._update_timers()

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel all timers."""
        super().connection_lost(exc)
        self._idle.pop(self, None)
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._cancel_read_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def pause_writing(self) -> None:
        """Start the timeout for the client to read the response."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._timeouts.reading_s, self.transport.abort)

    def resume_writing(self) -> None:
        """Cancel the timeout of `pause_writing`."""
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()

    def _is_before_head(self) -> bool:
        """Return whether the next byte to parse begins a request."""
        return self._part is Part.NONE and self._head_bytes == 0

    @property
    def _is_idle(self) -> bool:
        """Whether the last request is complete and no byte of a next one has arrived."""
        return self._has_requested and self._is_before_head() and not self._unparsed

    def _update_timers(self) -> None:
        """Start the timer of the part that the client has to send next, or the idle timer between requests."""
        if (self._part is not _BODY and self._is_answering) or self.transport.is_closing():
            if self._read_timer is not None:
                self._cancel_read_timer()
        elif self._is_idle and self._refusal is None:
            self._cancel_read_timer()
            self._idle[self], self._idle_since = None, self.loop.time()
            if self._idle_timer is None:  # the timer runs on during requests: a new one for each would cost more
                self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._check_idle_timeout)
        elif self._read_timer is None and self._refusal is None:
            self._part_began = self.loop.time()
            self._read_timer = self.loop.call_later(self._seconds_left(), self._check_read_timeout)

    def _cancel_read_timer(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _check_idle_timeout(self) -> None:
        self._idle_timer = None
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self not in self._idle:
            return
        if left_s > 0:
            self._idle_timer = self.loop.call_later(left_s, self._check_idle_timeout)
        else:
            self.transport.close()

    def _seconds_left(self) -> float:
        allowed_s = self._timeouts.head_s
        if self._part is _BODY:
            at_least_rate_s = self._timeouts.body_start_s + self._body_bytes / self._timeouts.least_bytes_per_s
            allowed_s = min(self._timeouts.body_s, at_least_rate_s)
        return self._part_began + allowed_s - self.loop.time()

    def _check_read_timeout(self) -> None:
        self._read_timer = None
        if self.transport.is_closing() or self._refusal is not None:
            return
        if self.flow.read_paused:  # the server causes the delay
            self._part_began = self.loop.time()
        left_s = self._seconds_left()
        if left_s > 0:
            self._read_timer = self.loop.call_later(left_s, self._check_read_timeout)
        elif self._head_bytes == 0 and self._part is Part.NONE:
            self.transport.close()  # the client has sent nothing, so no response is due
        else:
            self._refuse(TOO_SLOW)
