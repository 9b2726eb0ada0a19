"""Threads that send requests until a block ends."""

import threading
from collections.abc import Callable
from typing import Self


class ClientThreads:
    """Starts threads at the beginning of a `with` block; at its end they see `_ends`, and are awaited."""

    def __init__(self, clients: int, run: Callable[[int], None]) -> None:
        """`run` gets the number of its client, and returns once `_ends` is set."""
        self._ends, self._lock = threading.Event(), threading.Lock()
        self._threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()
