"""What all processes together have to do, in memory that they share.

Each process writes its own place and reads all of them, so nothing needs a lock; a reader may see a picture too many
or too few for a moment, which is as good as having come a moment earlier or later.
"""

import mmap

_NUMBER_BYTES = 8


class Board:
    """Two numbers of each process. Make it before the processes are forked."""

    def __init__(self, places: int) -> None:
        numbers = memoryview(mmap.mmap(-1, 2 * places * _NUMBER_BYTES)).cast("q")
        self._waiting, self._outstanding = numbers[:places], numbers[places:]

    def write(self, place: int, *, waiting: int, outstanding: int) -> None:
        """Note how many pictures wait in one process, and how many of its pictures have no answer yet."""
        self._waiting[place], self._outstanding[place] = waiting, outstanding

    def waiting(self) -> int:
        """Return how many pictures wait, in all processes."""
        return sum(self._waiting)

    def outstanding(self) -> int:
        """Return how many pictures wait or are being classified, in all processes."""
        return sum(self._outstanding)
