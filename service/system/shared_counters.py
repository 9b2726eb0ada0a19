"""The load of all worker processes, in memory that they share.

Each process writes its own counters and reads all of them without a lock. A reader may see a count that is off by one
for a moment, which is harmless.
"""

import mmap
import time

_NUMBER_BYTES = 8
_NOT_ACCEPTING = 2**62  # in place of a number of connections
_BUSY_NS = 50_000_000  # how long several images at once are remembered


class SharedLoad:
    """Three counters of each worker and one of all. Create it before the workers are forked."""

    def __init__(self, workers: int) -> None:
        numbers = memoryview(mmap.mmap(-1, (3 * workers + 1) * _NUMBER_BYTES)).cast("q")
        self._waiting, self._outstanding = numbers[:workers], numbers[workers : 2 * workers]
        self._connections = numbers[2 * workers : 3 * workers]
        self._busy_at_ns = numbers[3 * workers :]  # on the monotonic clock, which all processes share
        for worker in range(workers):
            self._connections[worker] = _NOT_ACCEPTING

    def write(self, worker: int, *, waiting: int, outstanding: int) -> None:
        """Set how many images wait in one worker, and how many of its images have no result yet."""
        self._waiting[worker], self._outstanding[worker] = waiting, outstanding
        if self.outstanding() > 1:
            self._busy_at_ns[0] = time.monotonic_ns()

    def has_single_request(self) -> bool:
        """Return whether one image is outstanding, and there were no more than that for 50 ms.

        Two clients often leave a single image outstanding for a moment. All cores for that image would delay the other
        client's image, which arrives just then.
        """
        return self.outstanding() == 1 and not self.was_recently_busy()

    def is_idle(self) -> bool:
        """Return whether no image is outstanding, and there were not several in the last 50 ms."""
        return self.outstanding() == 0 and not self.was_recently_busy()

    def was_recently_busy(self) -> bool:
        """Return whether several images were outstanding in the last 50 ms."""
        return time.monotonic_ns() - self._busy_at_ns[0] < _BUSY_NS

    def clear(self, worker: int) -> None:
        """Reset the counters of a worker that has ended."""
        self.write(worker, waiting=0, outstanding=0)
        self.note_connections(worker, None)

    def waiting(self) -> int:
        """Return how many images wait, in all workers."""
        return sum(self._waiting)

    def outstanding(self) -> int:
        """Return how many images wait or are being classified, in all workers."""
        return sum(self._outstanding)

    def note_connections(self, worker: int, count: int | None) -> None:
        """Set how many clients are connected to one worker; None: it accepts no more."""
        self._connections[worker] = _NOT_ACCEPTING if count is None else count

    def fewest_connections(self) -> int:
        """Return the smallest number of connections of the workers that accept more."""
        return min(self._connections)
