"""The event loop's time, divided between connections: those that have more to parse than one turn allows stand in line.

A pass of the loop gives them a few milliseconds at most. So however much some clients send at once, a new client is
accepted, and its request read, after a few short passes.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

_SHARE_S = 0.005  # of a pass
_MOST_FIRST, _MOST_LATER = 32, 8  # turns a pass: each may start a request, which costs more than its parsing

Turn = Callable[[], None]


class Turns:
    """The line of all connections of one event loop. What is held in it, they count themselves."""

    def __init__(self) -> None:
        self.held_bytes = 0  # that have come and are not parsed yet
        self._first: deque[Turn] = deque()  # requests that have just come
        self._later: deque[Turn] = deque()  # what connections sent beyond a turn
        self._is_under_way = False
        self._ends_at = 0.0
        self._left = 0

    def is_free(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Take a turn of this pass at once, and return whether there was one."""
        if not self._is_under_way:
            self._begin(loop)
        self._left -= 1
        return self._left >= 0 and not self._first and time.monotonic() < self._ends_at

    def wait(self, loop: asyncio.AbstractEventLoop, turn: Turn, *, is_first: bool) -> None:
        """Have a turn called in a later pass; the first of a request come before all others."""
        (self._first if is_first else self._later).append(turn)
        if not self._is_under_way:
            self._begin(loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_under_way = True
        self._ends_at = time.monotonic() + _SHARE_S
        self._left = _MOST_FIRST
        loop.call_soon(self._pass, loop)

    def _pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._is_under_way = False
        if not self._first and not self._later:
            return
        self._begin(loop)
        self._left -= self._give(self._first, self._left)
        self._give(self._later, _MOST_LATER)

    def _give(self, waiting: deque[Turn], most: int) -> int:
        """Give turns, at least one, and return how many."""
        given, most = 0, min(most, len(waiting))  # one that waits again has to wait for a later pass
        while given < most and (not given or time.monotonic() < self._ends_at):
            waiting.popleft()()
            given += 1
        return given
