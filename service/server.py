"""Runs the public and the admin application in one process, and ends them so that nobody loses an answer.

It answers from the first moment, and says that it is not ready until the models are loaded; a stop meanwhile is quick.
The order of any other end: told to stop; not ready any more, but still answering, for a short delay; listening no more;
everything that was accepted is answered; the engine's threads end; the admin port goes last. Each step has a limit.
"""

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI
from starlette.types import ASGIApp

from service.connection import Connection, Patience
from service.listener import turn_away_new_clients

log = logging.getLogger(__name__)

_KEEP_ALIVE_S = 75  # longer than the 60 s of the usual load balancers, so that they close first
_FIRST_WORDS_S, _FIRST_WORDS_TRIES = 0.5, 5  # for clients that have just connected to send their request
_LAST_WORDS_S = 0.5
_HARD_LIMIT_S = 2.5  # beyond the sum of the other limits


@dataclass(frozen=True, slots=True)
class Drain:
    """How long the steps of an end may take."""

    delay_s: float
    timeout_s: int


class _Server(uvicorn.Server):
    """uvicorn's server, without its own signal handling, and deaf to nobody who had connected."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in sockets or ():
            turn_away_new_clients(listener)
        for _ in range(_FIRST_WORDS_TRIES):
            await asyncio.sleep(_FIRST_WORDS_S / _FIRST_WORDS_TRIES)
            if not any(isinstance(client, Connection) and client.is_silent for client in self.server_state.connections):
                break
        await super().shutdown(sockets)


def serve(
    public: FastAPI,
    admin: ASGIApp,
    listener: socket.socket,
    admin_listener: socket.socket,
    drain: Drain,
    patience: Patience,
) -> None:
    """Serve until SIGTERM or SIGINT, then end gracefully. Raises what the application's start raises."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(public, admin, listener, admin_listener, drain, patience))


async def _serve(
    public: FastAPI,
    admin: ASGIApp,
    listener: socket.socket,
    admin_listener: socket.socket,
    drain: Drain,
    patience: Patience,
) -> None:
    told_to_stop, told_twice = _watch_signals()
    server, admin_server = _make_server(public, drain, patience), _make_server(admin, drain, patience)
    serving = asyncio.create_task(server.serve([listener]))
    serving_admin = asyncio.create_task(admin_server.serve([admin_listener]))
    async with contextlib.AsyncExitStack() as lifespan:
        start = lifespan.enter_async_context(public.router.lifespan_context(public))
        is_ready = await _completes_before(told_to_stop, start)
        if is_ready:
            log.info("listening on %s, metrics on %s/metrics", _address(listener), _address(admin_listener))
            await told_to_stop.wait()
        log.info("stopping: finishing what was accepted")
        _end_at_the_latest_in(drain.delay_s + drain.timeout_s + _HARD_LIMIT_S)
        public.state.readiness.state = "draining"
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told_twice.wait(), drain.delay_s if is_ready else 0)
        await _end(server, serving, told_twice)
    admin_server.should_exit = admin_server.force_exit = True
    await serving_admin
    log.info("stopped")


async def _completes_before(event: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Return whether the work was done before the event, which ends it. Raises what the work raises."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(event.wait())
    await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not working.done():
        working.cancel()
        await asyncio.wait((working,))
        return False
    working.result()
    return True


async def _end(server: _Server, serving: asyncio.Task[None], hurry: asyncio.Event) -> None:
    """Answer what is open; `hurry` cuts the waiting short."""
    server.should_exit = True
    hurrying = asyncio.create_task(hurry.wait())
    await asyncio.wait((serving, hurrying), return_when=asyncio.FIRST_COMPLETED)
    server.force_exit = True
    hurrying.cancel()
    await serving
    for task in server.server_state.tasks:
        task.cancel()
    if server.server_state.tasks:
        await asyncio.wait(server.server_state.tasks, timeout=_LAST_WORDS_S)


def _watch_signals() -> tuple[asyncio.Event, asyncio.Event]:
    """Return what is set by the first and by the second signal to stop."""
    first, second = asyncio.Event(), asyncio.Event()

    def note() -> None:
        (second if first.is_set() else first).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, note)
    return first, second


def _make_server(app: ASGIApp, drain: Drain, patience: Patience) -> _Server:
    config = uvicorn.Config(
        app,
        http=functools.partial(Connection, patience=patience),  # type: ignore[arg-type]  # whatever makes one will do
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=drain.timeout_s,
    )
    return _Server(config)


def _end_at_the_latest_in(seconds: float) -> None:
    """End the process even if a thread or the loop hangs: nobody waits for ever for a server to stop."""

    def end() -> None:
        log.error("stopping took too long; what was left is given up")
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
