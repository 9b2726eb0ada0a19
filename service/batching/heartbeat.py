"""Whether a thread is alive: it answers when it is idle, and is not at one thing for much too long when it is busy."""

import time

_MISSED_CALLS = 5  # that an idle thread may leave unanswered: the cores can be busy
_SHORTEST_LIMIT_S = 6.0
_SLOWER_THAN_EXPECTED = 10.0


class Heartbeat:
    """One thread's signs of life: written by the thread, read by whoever watches it."""

    __slots__ = ("_busy_since", "_heard", "_limit_s")

    def __init__(self) -> None:
        self._busy_since: float | None = None
        self._limit_s = _SHORTEST_LIMIT_S
        self._heard = 0.0

    def hear(self, call: float) -> None:
        """Answer a call; calls are numbered. Infinity: it need not be called."""
        self._heard = call

    def begin(self, expected_s: float) -> None:
        """Begin something, or the next thing, that should take about this long."""
        self._limit_s = max(_SHORTEST_LIMIT_S, _SLOWER_THAN_EXPECTED * expected_s)
        self._busy_since = time.monotonic()

    def end(self) -> None:
        """Be idle again."""
        self._busy_since = None

    def is_healthy(self, last_call: int, now: float) -> bool:
        """Whether the thread still does what it should, at `now`, in monotonic seconds."""
        busy_since = self._busy_since
        if busy_since is not None:
            return now - busy_since <= self._limit_s
        return self._heard >= last_call - _MISSED_CALLS
