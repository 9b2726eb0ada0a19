"""What all processes together have to do, in memory that they share.

Each process writes its own place and reads all of them, so nothing needs a lock; a reader may see an image too many
or too few for a moment, which is as good as having come a moment earlier or later.
"""

import mmap
import time

_NUMBER_BYTES = 8
_DEAF = 2**62  # in place of a number of connections
_CROWD_NS = 50_000_000  # how long several images at once are remembered


class SharedLoad:
    """Three numbers of each process, and one of all. Make it before the processes are forked."""

    def __init__(self, places: int) -> None:
        numbers = memoryview(mmap.mmap(-1, (3 * places + 1) * _NUMBER_BYTES)).cast("q")
        self._waiting, self._outstanding = numbers[:places], numbers[places : 2 * places]
        self._connections = numbers[2 * places : 3 * places]
        self._crowded_at_ns = numbers[3 * places :]  # on the monotonic clock, which all processes share
        for place in range(places):
            self._connections[place] = _DEAF

    def write(self, place: int, *, waiting: int, outstanding: int) -> None:
        """Note how many images wait in one process, and how many of its images have no answer yet."""
        self._waiting[place], self._outstanding[place] = waiting, outstanding
        if self.outstanding() > 1:
            self._crowded_at_ns[0] = time.monotonic_ns()

    def has_single_request(self) -> bool:
        """Whether a single image has no answer yet, and there were no more than that for a while.

        Two clients often leave a single image outstanding for a moment. All cores for that image would delay the other
        client's image, which arrives just then.
        """
        return self.outstanding() == 1 and not self.was_recently_busy()

    def is_nobody_there(self) -> bool:
        """Whether no image is without an answer, and there were not several a moment ago."""
        return self.outstanding() == 0 and not self.was_recently_busy()

    def was_recently_busy(self) -> bool:
        """Whether there are several images without an answer, or were a moment ago."""
        return time.monotonic_ns() - self._crowded_at_ns[0] < _CROWD_NS

    def clear(self, place: int) -> None:
        """Note that a process is no more."""
        self.write(place, waiting=0, outstanding=0)
        self.note_connections(place, None)

    def waiting(self) -> int:
        """Return how many images wait, in all processes."""
        return sum(self._waiting)

    def outstanding(self) -> int:
        """Return how many images wait or are being classified, in all processes."""
        return sum(self._outstanding)

    def note_connections(self, place: int, count: int | None) -> None:
        """Note how many clients are connected to one process; None: it takes no more of them."""
        self._connections[place] = _DEAF if count is None else count

    def fewest_connections(self) -> int:
        """Return how many clients are connected to that of the processes that take more which has the fewest."""
        return min(self._connections)
