"""Parsing turns: the event loop's time, divided between connections.

A connection that has more bytes than one turn allows waits for a turn in a later pass of the event loop. The number of
turns a pass doubles while passes are short and halves after a long one, because each turn may start a request of
unknown cost. A new client is therefore accepted and its request read after a few short passes, whatever other clients
send.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

_FIRST_TURNS, _MOST_TURNS = 4, 32  # a pass
_LATER = 4  # one turn of the `_later` queue for each 4 turns of a pass
_LONG_PASS_S = 0.02  # CPU time of the loop's thread

Turn = Callable[[], None]


class Turns:
    """The queues of turns of all connections of one event loop. Connections maintain `unparsed_bytes` themselves."""

    def __init__(self) -> None:
        self.unparsed_bytes = 0  # received and not parsed yet
        self._first: deque[Turn] = deque()  # small requests that have just arrived
        self._later: deque[Turn] = deque()  # bytes beyond a connection's turn
        self._most = _FIRST_TURNS
        self._left = 0  # turns of this pass
        self._is_under_way = False
        self._began_s = 0.0

    def take(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Take a turn of this pass; return False if none is left."""
        if not self._is_under_way:
            self._begin(loop)
        self._left -= 1
        return self._left >= 0 and not self._first

    def wait(self, loop: asyncio.AbstractEventLoop, turn: Turn, *, is_first: bool) -> None:
        """Call `turn` in a later pass. `is_first` marks a small new request, which precedes all other turns."""
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
            self._left -= self._run_turns(self._first, self._most)
            self._run_turns(self._later, max(1, self._most // _LATER))

    def _run_turns(self, waiting: deque[Turn], most: int) -> int:
        given = min(most, len(waiting))  # a turn that is queued again waits for a later pass
        for _ in range(given):
            waiting.popleft()()
        return given
