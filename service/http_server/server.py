"""A uvicorn server that drains accepted connections on shutdown and leaves signals to the supervisor.

Steps of a shutdown, each with a time limit: the readiness probe fails while requests are still accepted (`delay_s`);
the listening socket drops new connections; accepted requests are answered (`timeout_s`); the engine's threads end.
"""

import asyncio
import contextlib
import functools
import logging
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from service.http.trace_headers import request_id
from service.http_server.acceptor import Acceptor, connection_limit
from service.http_server.client_timeouts import ClientTimeouts
from service.http_server.connection import Connection, OnRejected, ignore_rejected
from service.http_server.early_errors import TOO_MANY_CONNECTIONS
from service.http_server.listener import drop_new_connections
from service.http_server.overload import OverloadControl
from service.http_server.parser import ParsingProtocol
from service.http_server.parsing_turns import Turns
from service.system.shared_counters import SharedLoad

log = logging.getLogger(__name__)

_KEEP_ALIVE_S = 75  # longer than the 60 s of common load balancers, so that they close first
_FIRST_REQUEST_S, _FIRST_REQUEST_CHECKS = 0.5, 5  # for clients that have just connected to send their request
_CANCELLATION_S = 0.5
_MOST_ADMIN_CLIENTS = 64
_DISCARD_BYTES = 64 * 1024  # read from a rejected client: closing on unread bytes would reset the connection
_HARD_LIMIT_S = 2.5  # beyond the sum of the other limits


@dataclass(frozen=True, slots=True)
class Drain:
    """Time limits of the steps of a shutdown."""

    delay_s: float
    timeout_s: int

    @property
    def longest_s(self) -> float:
        """The limit of the whole shutdown, in seconds."""
        return self.delay_s + self.timeout_s + _HARD_LIMIT_S


class Server(uvicorn.Server):
    """uvicorn's server without signal handling, with a limit on connections and a drained shutdown.

    With a `shared_load` the process is worker `worker_index` of several and accepts only its share of the connections.
    Without one it is an admin server, which accepts at most 64.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        shared_load: SharedLoad | None,
        worker_index: int,
        idle: dict[ParsingProtocol, None],
        on_rejected: OnRejected,
    ) -> None:
        super().__init__(config)
        self._shared_load, self._worker_index = shared_load, worker_index
        self._idle = idle
        self._on_rejected = on_rejected
        self.is_replaced = False  # another worker accepts the new connections, so none may be dropped

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        self.servers = [self._accept_from(listener) for listener in sockets or ()]  # type: ignore[misc]

    def _accept_from(self, listener: socket.socket) -> Acceptor:
        def connect() -> asyncio.BaseProtocol:
            make = self.config.http_protocol_class
            state = self.server_state
            return make(config=self.config, server_state=state, app_state={}, on_lost=acceptor.on_connection_lost)  # type: ignore[call-arg]

        limit = connection_limit() if self._shared_load else min(_MOST_ADMIN_CLIENTS, connection_limit())
        acceptor = Acceptor(
            listener,
            connect,
            shared_load=self._shared_load or SharedLoad(1),
            worker_index=self._worker_index,
            max_connections=limit,
            close_idle=self._close_longest_idle,
            reject=self._reject,
        )
        return acceptor

    def _close_longest_idle(self) -> bool:
        """Close the connection that has been idle longest; return False if none is idle."""
        connection = next(iter(self._idle), None)
        if connection is None:
            return False
        del self._idle[connection]
        connection.transport.close()
        return True

    def _reject(self, client: socket.socket) -> None:
        """Send the error `too_many_connections` and close: a client that only waited would not learn the reason."""
        identity = request_id(None)
        with client, contextlib.suppress(OSError):
            client.setblocking(False)
            client.send(TOO_MANY_CONNECTIONS.answer("", identity))
            client.recv(_DISCARD_BYTES)
        self._on_rejected(TOO_MANY_CONNECTIONS.status, TOO_MANY_CONNECTIONS.code, identity, None)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in () if self.is_replaced else sockets or ():
            drop_new_connections(listener)
        for _ in range(_FIRST_REQUEST_CHECKS):
            await asyncio.sleep(_FIRST_REQUEST_S / _FIRST_REQUEST_CHECKS)
            if not any(
                isinstance(client, Connection) and client.awaits_first_request
                for client in self.server_state.connections
            ):
                break
        await super().shutdown(sockets)

    async def end(self, serving: asyncio.Task[None], hurry: asyncio.Event) -> None:
        """Stop the server after the open requests, or as soon as `hurry` is set. `serving` is the task of `serve`."""
        self.should_exit = True
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait((serving, hurrying), return_when=asyncio.FIRST_COMPLETED)
        self.force_exit = True
        hurrying.cancel()
        await asyncio.wait((serving,))
        for task in self.server_state.tasks:
            task.cancel()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_CANCELLATION_S)


def make_server(
    app: ASGIApp,
    drain: Drain,
    timeouts: ClientTimeouts,
    *,
    shared_load: SharedLoad | None = None,
    worker_index: int = 0,
    on_rejected: OnRejected = ignore_rejected,
    overload: OverloadControl | None = None,
) -> Server:
    """Return a server for one application; call its `serve` with a list of listening sockets.

    `shared_load` and `worker_index` are as in `Server`. `on_rejected` is called for each request that is refused
    before it reaches the application. `overload` refuses requests while the queue is full.
    """
    idle: dict[ParsingProtocol, None] = {}
    connection = functools.partial(
        Connection, timeouts=timeouts, on_rejected=on_rejected, turns=Turns(), idle=idle, overload=overload
    )
    config = uvicorn.Config(
        app,
        http=connection,  # type: ignore[arg-type]  # uvicorn only calls it, so a partial will do
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain.timeout_s,
    )
    return Server(config, shared_load, worker_index, idle, on_rejected)


def exit_after(seconds: float, status: int = 0) -> None:
    """Exit the process with `status` after a time limit, even if a thread or the event loop hangs."""

    def end() -> None:
        log.error("shutdown did not finish in %g s; exiting now", seconds)
        logging.shutdown()
        os._exit(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def address_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket, without a path."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
