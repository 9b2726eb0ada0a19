"""uvicorn, as this server runs it: deaf to nobody who had connected, without its own signals, with limits on an end.

The order of an end: told to stop; not ready any more, but still answering, for a short delay; listening no more;
everything that was accepted is answered; the engine's threads end. Each step has a limit.
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
from service.http_server.acceptor import Acceptor, most_clients
from service.http_server.connection import ClientTimeouts, Connection, OnRejected, ignore_unread
from service.http_server.early_errors import NO_CONNECTION_LEFT
from service.http_server.listener import drop_new_connections
from service.http_server.overload import OverloadControl
from service.http_server.parser import ParsingProtocol
from service.http_server.parsing_turns import Turns
from service.system.shared_counters import SharedLoad

log = logging.getLogger(__name__)

_KEEP_ALIVE_S = 75  # longer than the 60 s of the usual load balancers, so that they close first
_FIRST_WORDS_S, _FIRST_WORDS_TRIES = 0.5, 5  # for clients that have just connected to send their request
_LAST_WORDS_S = 0.5
_MOST_ADMIN_CLIENTS = 64
_SKIPPED_BYTES = 64 * 1024  # of a client that is turned away: closing on unread bytes resets the connection
_HARD_LIMIT_S = 2.5  # beyond the sum of the other limits


@dataclass(frozen=True, slots=True)
class Drain:
    """How long the steps of an end may take."""

    delay_s: float
    timeout_s: int

    @property
    def longest_s(self) -> float:
        """The whole of it."""
        return self.delay_s + self.timeout_s + _HARD_LIMIT_S


class Server(uvicorn.Server):
    """uvicorn's server, without its own signal handling, and deaf to nobody who had connected.

    `among` others it takes only its share of the clients: the board of all processes, and its place there.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        among: tuple[SharedLoad, int] | None,
        idle: dict[ParsingProtocol, None],
        on_unread: OnRejected,
    ) -> None:
        super().__init__(config)
        self._among = among
        self._idle = idle
        self._on_unread = on_unread
        self.is_replaced = False  # once it has ended: then the clients that come now are for others

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([])
        self.servers = [self._accept_from(listener) for listener in sockets or ()]  # type: ignore[misc]

    def _accept_from(self, listener: socket.socket) -> Acceptor:
        def connect() -> asyncio.BaseProtocol:
            make = self.config.http_protocol_class
            state = self.server_state
            return make(config=self.config, server_state=state, app_state={}, on_lost=acceptor.note_lost)  # type: ignore[call-arg]

        board, place = self._among or (SharedLoad(1), 0)
        most = most_clients() if self._among else min(_MOST_ADMIN_CLIENTS, most_clients())
        acceptor = Acceptor(
            listener,
            connect,
            board=board,
            place=place,
            most=most,
            make_room=self._close_longest_idle,
            turn_away=self._turn_away,
        )
        return acceptor

    def _close_longest_idle(self) -> bool:
        """Close the connection that has been idle longest, and return whether there was one."""
        connection = next(iter(self._idle), None)
        if connection is None:
            return False
        del self._idle[connection]
        connection.transport.close()
        return True

    def _turn_away(self, client: socket.socket) -> None:
        """Say that there is no connection left: a client that merely waited would not know why."""
        identity = request_id(None)
        with client, contextlib.suppress(OSError):
            client.setblocking(False)
            client.send(NO_CONNECTION_LEFT.answer("", identity))
            client.recv(_SKIPPED_BYTES)
        self._on_unread(NO_CONNECTION_LEFT.status, NO_CONNECTION_LEFT.code, identity, None)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in () if self.is_replaced else sockets or ():
            drop_new_connections(listener)
        for _ in range(_FIRST_WORDS_TRIES):
            await asyncio.sleep(_FIRST_WORDS_S / _FIRST_WORDS_TRIES)
            if not any(isinstance(client, Connection) and client.is_silent for client in self.server_state.connections):
                break
        await super().shutdown(sockets)

    async def end(self, serving: asyncio.Task[None], hurry: asyncio.Event) -> None:
        """Answer what is open; `hurry` cuts the waiting short. `serving` runs this server."""
        self.should_exit = True
        hurrying = asyncio.create_task(hurry.wait())
        await asyncio.wait((serving, hurrying), return_when=asyncio.FIRST_COMPLETED)
        self.force_exit = True
        hurrying.cancel()
        await asyncio.wait((serving,))
        for task in self.server_state.tasks:
            task.cancel()
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_LAST_WORDS_S)


def make_server(
    app: ASGIApp,
    drain: Drain,
    patience: ClientTimeouts,
    among: tuple[SharedLoad, int] | None = None,
    on_unread: OnRejected = ignore_unread,
    overload: OverloadControl | None = None,
) -> Server:
    """Return a server for one application; `serve` it with a listening socket.

    `among`: as `Server` has it; `on_unread` is called for what was refused before the application saw it;
    `overload` refuses requests that find no capacity.
    """
    idle: dict[ParsingProtocol, None] = {}
    connection = functools.partial(
        Connection, patience=patience, on_unread=on_unread, turns=Turns(), idle=idle, overload=overload
    )
    config = uvicorn.Config(
        app,
        http=connection,  # type: ignore[arg-type]  # whatever makes one will do
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain.timeout_s,
    )
    return Server(config, among, idle, on_unread)


def end_at_the_latest_in(seconds: float, status: int = 0) -> None:
    """End the process even if a thread or the loop hangs: nobody waits for ever for a server to stop."""

    def end() -> None:
        log.error("stopping took too long; what was left is given up")
        logging.shutdown()
        os._exit(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def address_of(listener: socket.socket) -> str:
    """Return the address that clients use."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
