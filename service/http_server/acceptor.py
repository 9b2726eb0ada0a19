"""Accepting connections from a socket that all processes share, so that each process gets its share of them.

Connections are capped below the limit of file descriptors, as a process without any left cannot even refuse a client.
At the cap a new client takes the place of the one that has been idle longest.

Left to itself, whichever process wakes first takes all that wait: with four or eight clients one process often had
every one of them and the other none, at half the throughput. So who has more clients than another leaves new ones to
it; but not for long, as the other may be busy.
"""

import asyncio
import errno
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable

from service.system.shared_counters import SharedLoad

log = logging.getLogger(__name__)

_DEFERRED_S, _MOST_DEFERRALS = 0.001, 10
_MOST_AT_ONCE = 32
_TOLERATED = 8  # a client more for each so many: among many, a few more make no difference
_NO_ROOM = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_NO_ROOM_S = 1.0
_RESERVED_FILES = 64  # for models, logs and statistics; a quarter where there are few


def most_clients() -> int:
    """Return how many clients this process can have, by its limit of file descriptors and those that it has open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    try:
        in_use = len(os.listdir("/dev/fd"))
    except OSError:  # a system without it, or there is no descriptor left to read it
        in_use = _RESERVED_FILES
    return max(1, limit - in_use - min(_RESERVED_FILES, limit // 4))


def _no_room() -> bool:
    return False


def _close(client: socket.socket) -> None:
    client.close()


class Acceptor:
    """Takes clients in on the running event loop, from the moment that it is made; wants to hear when they leave.

    Beyond `most` clients it asks `make_room` to close an idle one, and lets `turn_away` answer and close the new one if
    there is none.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        *,
        board: SharedLoad,
        place: int,
        most: int = sys.maxsize,
        make_room: Callable[[], bool] = _no_room,
        turn_away: Callable[[socket.socket], None] = _close,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._make_protocol = make_protocol
        self._board, self._place = board, place
        self._most, self._make_room, self._turn_away = most, make_room, turn_away
        self._clients = 0
        self._coming: set[asyncio.Task[None]] = set()
        self._deferrals = 0
        self._pause: asyncio.TimerHandle | None = None
        self._is_closed = False
        listener.setblocking(False)
        self._count(0)
        self._listen()

    def note_lost(self) -> None:
        """Note that a client has left."""
        self._count(-1)

    def close(self) -> None:
        """Accept no more; the listener stays open."""
        self._is_closed = True
        self._count(0)
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()

    async def wait_closed(self) -> None:
        """Wait for clients that were accepted just now."""
        if self._coming:
            await asyncio.wait(self._coming)

    def _count(self, change: int) -> None:
        self._clients += change
        self._board.note_connections(self._place, None if self._is_closed else self._clients)

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _stop_for(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._listen)

    def _accept(self) -> None:
        """Take in some of those who wait: in a pass of a busy loop one alone would be few."""
        for _ in range(_MOST_AT_ONCE):
            if self._has_its_share() and self._deferrals < _MOST_DEFERRALS:
                self._deferrals += 1
                self._stop_for(_DEFERRED_S)
                return
            self._deferrals = 0
            client = self._next_client()
            if client is None:
                return
            self._welcome(client)

    def _next_client(self) -> socket.socket | None:
        try:
            return self._listener.accept()[0]
        except OSError as error:  # another process was faster, or the client has gone already
            if error.errno in _NO_ROOM:
                self._make_room()
                log.error("no more clients can be accepted for now: %s", error)
                self._stop_for(_NO_ROOM_S)
            return None

    def _welcome(self, client: socket.socket) -> None:
        if self._clients >= self._most and not self._make_room():
            self._turn_away(client)
            return
        self._count(1)
        task = self._loop.create_task(self._take_in(client))
        self._coming.add(task)
        task.add_done_callback(self._coming.discard)

    def _has_its_share(self) -> bool:
        fewest = self._board.fewest_connections()
        return self._clients > fewest + fewest // _TOLERATED

    async def _take_in(self, client: socket.socket) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, client)
        except OSError:  # it has gone already
            client.close()
            self._count(-1)
