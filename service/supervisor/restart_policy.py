"""The restart policy: how soon a worker that ended is replaced, and when repeated failures should end the server.

A failure is forgotten once a worker has been healthy for ten seconds, and in any case after half an hour.
"""

import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_REMEMBERED_S = 1800.0
_HEALTHY_S = 10.0  # a worker that was healthy for as long clears all failures before


@dataclass(frozen=True, slots=True)
class WorkerExit:
    """How a worker process ended."""

    code: int  # its exit status, or minus the signal that ended it
    was_loaded: bool
    healthy_s: float  # from loading its models to its last report of healthy threads
    was_killed_by_supervisor: bool

    @property
    def was_killed_externally(self) -> bool:
        """Whether an operator or the kernel killed a worker that served."""
        return self.was_loaded and not self.was_killed_by_supervisor and self.code == -signal.SIGKILL


class RestartPolicy:
    """The failures that count, and the delays that follow from them."""

    def __init__(self, delays_s: Sequence[float], clock: Callable[[], float] = time.monotonic) -> None:
        """`delays_s`: before the next start, by the number of failures; as many failures as delays are too many."""
        self._delays_s = delays_s
        self._clock = clock
        self._failed_at: list[float] = []

    @property
    def failures(self) -> int:
        """The number of remembered failures."""
        now = self._clock()
        self._failed_at = [moment for moment in self._failed_at if now - moment < _REMEMBERED_S]
        return len(self._failed_at)

    @property
    def delay_s(self) -> float:
        """The seconds before the next start."""
        return self._delays_s[min(max(0, self.failures - 1), len(self._delays_s) - 1)]

    def note_failure(self) -> None:
        """Count a failure."""
        self._failed_at = [*self._failed_at[-len(self._delays_s) :], self._clock()]

    def delay_after(self, worker_exit: WorkerExit, *, others_serve: bool) -> float | None:
        """Count the end of a worker, and return the seconds before its replacement starts; None: end the server.

        Only workers that fail by themselves or are killed by the supervisor count, not those that are killed
        externally. Too many failures end the server only if no other worker serves.
        """
        was_healthy = worker_exit.healthy_s >= _HEALTHY_S
        if was_healthy or worker_exit.was_killed_externally:
            self._failed_at.clear()
        if worker_exit.was_killed_by_supervisor or not (was_healthy or worker_exit.was_killed_externally):
            self.note_failure()
        if self.failures >= len(self._delays_s) and not others_serve:
            return None
        return self.delay_s
