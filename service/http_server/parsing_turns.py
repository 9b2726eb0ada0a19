"""The event loop's time, divided between connections: those that have more to parse than one turn allows stand in line.

A pass of the loop gives a number of turns that doubles while passes are short and halves when one took long: each turn
may start a request, and nobody knows what that costs. So however much some clients send at once, a new client is
accepted, and its request read, after a few short passes.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

_FIRST_TURNS, _MOST_TURNS = 4, 32  # a pass
_LATER = 4  # for each so many of them, one of those that can wait
_LONG_PASS_S = 0.02  # of the loop's own thread

Turn = Callable[[], None]


class Turns:
    """The line of all connections of one event loop. What is held in it, they count themselves."""

    def __init__(self) -> None:
        self.held_bytes = 0  # that have come and are not parsed yet
        self._first: deque[Turn] = deque()  # small requests that have just come
        self._later: deque[Turn] = deque()  # what connections sent beyond a turn
        self._most = _FIRST_TURNS
        self._left = 0  # of this pass
        self._is_under_way = False
        self._began_s = 0.0

    def is_free(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Take a turn of this pass at once, and return whether there was one."""
        if not self._is_under_way:
            self._begin(loop)
        self._left -= 1
        return self._left >= 0 and not self._first

    def wait(self, loop: asyncio.AbstractEventLoop, turn: Turn, *, is_first: bool) -> None:
        """Have a turn called in a later pass; what is small and has just come goes before all else."""
        (self._first if is_first else self._later).append(turn)
        if not self._is_under_way:
            self._begin(loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_under_way = True
        self._began_s = time.thread_time()
        self._left = self._most
        loop.call_soon(self._pass, loop)

    def _pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_under_way = False
        spent_s = time.thread_time() - self._began_s
        if spent_s > _LONG_PASS_S:
            self._most = max(1, self._most // 2)
        elif spent_s < _LONG_PASS_S / 2:
            self._most = min(2 * self._most, _MOST_TURNS)
        if self._first or self._later:
            self._begin(loop)
            self._left -= self._give(self._first, self._most)
            self._give(self._later, max(1, self._most // _LATER))

    def _give(self, waiting: deque[Turn], most: int) -> int:
        given = min(most, len(waiting))  # a turn that waits again has to wait for a later pass
        for _ in range(given):
            waiting.popleft()()
        return given
