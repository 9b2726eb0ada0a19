"""Liveness of a thread: an idle thread answers checks, and a busy one stays within ten times its expected time."""

import time

_MISSED_CHECKS = 5  # allowed for an idle thread, because the cores can be busy
_SHORTEST_LIMIT_S = 6.0
_SLOWER_THAN_EXPECTED = 10.0


class Heartbeat:
    """The state of one thread: written by the thread, read by the health check."""

    __slots__ = ("_busy_since", "_last_check", "_limit_s")

    def __init__(self) -> None:
        self._busy_since: float | None = None
        self._limit_s = _SHORTEST_LIMIT_S
        self._last_check = 0.0

    def beat(self, check: float) -> None:
        """Store the number of the last answered check; infinity exempts an idle thread from checks."""
        self._last_check = check

    def begin(self, expected_s: float) -> None:
        """Mark the thread busy with work that should take about `expected_s` seconds."""
        self._limit_s = max(_SHORTEST_LIMIT_S, _SLOWER_THAN_EXPECTED * expected_s)
        self._busy_since = time.monotonic()

    def end(self) -> None:
        """Mark the thread idle."""
        self._busy_since = None

    def is_healthy(self, last_check: int, now: float) -> bool:
        """Return whether the thread is healthy at `now`, in monotonic seconds."""
        busy_since = self._busy_since
        if busy_since is not None:
            return now - busy_since <= self._limit_s
        return self._last_check >= last_check - _MISSED_CHECKS
