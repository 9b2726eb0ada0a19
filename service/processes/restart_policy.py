"""How soon a process that ended is started again, and when failures are too many.

A failure is forgotten when a process has served well since, and in any case after half an hour.
"""

import time
from collections.abc import Callable, Sequence

_REMEMBERED_S = 1800.0


class Restarts:
    """The failures that count."""

    def __init__(self, delays_s: Sequence[float], clock: Callable[[], float] = time.monotonic) -> None:
        """`delays_s`: before the next start, after so many failures; as many failures as delays are too many."""
        self._delays_s = delays_s
        self._clock = clock
        self._failed_at: list[float] = []

    @property
    def count(self) -> int:
        """How many failures are remembered."""
        now = self._clock()
        self._failed_at = [moment for moment in self._failed_at if now - moment < _REMEMBERED_S]
        return len(self._failed_at)

    @property
    def are_too_many(self) -> bool:
        """Whether a server that has nothing else to serve with should end."""
        return self.count >= len(self._delays_s)

    @property
    def delay_s(self) -> float:
        """How long the next start waits, in seconds."""
        return self._delays_s[min(max(0, self.count - 1), len(self._delays_s) - 1)]

    def note_failure(self) -> None:
        """Count a failure."""
        self._failed_at = [*self._failed_at[-len(self._delays_s) :], self._clock()]

    def note_end(self, *, was_well: bool, was_killed_from_outside: bool, was_killed_here: bool) -> None:
        """Count the end of a process, if it is a failure. One that `was_well` makes up for all before it.

        Somebody may kill processes that serve as often as they like; those that fail by themselves may not.
        """
        if was_well or was_killed_from_outside:
            self._failed_at.clear()
        if was_killed_here or not (was_well or was_killed_from_outside):
            self.note_failure()
