"""Accepting connections from a socket that all worker processes share.

The number of connections is limited below the number of file descriptors, because a process without a free descriptor
cannot send a refusal. At the limit, a new connection replaces the one that has been idle longest.

Without balancing, the process that wakes first accepts all pending connections. With four or eight clients, one
process often had all of them and the throughput was halved. A process with more connections than another one
therefore defers `accept` for up to 10 ms.
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
_MAX_ACCEPTED_AT_ONCE = 32
_TOLERANCE_DIVISOR = 8  # an excess of 1/8 of the smallest count is tolerated
_OUT_OF_RESOURCES = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_OUT_OF_RESOURCES_S = 1.0
_RESERVED_FILES = 64  # for models, logs and statistics; at most a quarter of the limit


def connection_limit() -> int:
    """Return how many connections this process can hold: the free file descriptors, less a reserve."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return sys.maxsize
    try:
        in_use = len(os.listdir("/dev/fd"))
    except OSError:  # the folder does not exist, or no descriptor is free to read it
        in_use = _RESERVED_FILES
    return max(1, limit - in_use - min(_RESERVED_FILES, limit // 4))


def _nothing_to_close() -> bool:
    return False


def _close(client: socket.socket) -> None:
    client.close()


class Acceptor:
    """Accepts connections on the running event loop, from its construction until `close`.

    The owner calls `on_connection_lost` for each connection that ends. At `max_connections` the acceptor calls
    `close_idle` to close an idle connection. If that returns False, it passes the new connection to `reject`.
    """

    def __init__(
        self,
        listener: socket.socket,
        make_protocol: Callable[[], asyncio.BaseProtocol],
        *,
        shared_load: SharedLoad,
        worker_index: int,
        max_connections: int = sys.maxsize,
        close_idle: Callable[[], bool] = _nothing_to_close,
        reject: Callable[[socket.socket], None] = _close,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._make_protocol = make_protocol
        self._shared_load, self._worker_index = shared_load, worker_index
        self._max_connections, self._close_idle, self._reject = max_connections, close_idle, reject
        self._clients = 0
        self._connecting: set[asyncio.Task[None]] = set()
        self._deferrals = 0
        self._pause: asyncio.TimerHandle | None = None
        self._is_closed = False
        listener.setblocking(False)
        self._count(0)
        self._listen()

    def on_connection_lost(self) -> None:
        """Subtract a connection that has ended."""
        self._count(-1)

    def close(self) -> None:
        """Stop accepting; the listening socket stays open."""
        self._is_closed = True
        self._count(0)
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()

    async def wait_closed(self) -> None:
        """Wait until the protocols of all accepted connections are set up."""
        if self._connecting:
            await asyncio.wait(self._connecting)

    def _count(self, change: int) -> None:
        self._clients += change
        self._shared_load.note_connections(self._worker_index, None if self._is_closed else self._clients)

    def _listen(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener, self._accept)

    def _stop_for(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._pause = self._loop.call_later(seconds, self._listen)

    def _accept(self) -> None:
        """Accept up to 32 pending connections: one for each pass of a busy loop would be too slow."""
        for _ in range(_MAX_ACCEPTED_AT_ONCE):
            if self._has_fair_share() and self._deferrals < _MOST_DEFERRALS:
                self._deferrals += 1
                self._stop_for(_DEFERRED_S)
                return
            self._deferrals = 0
            client = self._next_client()
            if client is None:
                return
            self._handle_client(client)

    def _next_client(self) -> socket.socket | None:
        try:
            return self._listener.accept()[0]
        except OSError as error:  # another process was faster, or the client has disconnected
            if error.errno in _OUT_OF_RESOURCES:
                self._close_idle()
                log.error("cannot accept connections: %s; retrying in %g s", error, _OUT_OF_RESOURCES_S)
                self._stop_for(_OUT_OF_RESOURCES_S)
            return None

    def _handle_client(self, client: socket.socket) -> None:
        if self._clients >= self._max_connections and not self._close_idle():
            self._reject(client)
            return
        self._count(1)
        task = self._loop.create_task(self._connect(client))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    def _has_fair_share(self) -> bool:
        fewest = self._shared_load.fewest_connections()
        return self._clients > fewest + fewest // _TOLERANCE_DIVISOR

    async def _connect(self, client: socket.socket) -> None:
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, client)
        except OSError:  # the client has disconnected
            client.close()
            self._count(-1)
