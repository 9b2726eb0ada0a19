"""One process that answers requests: the application, its engine, and an ear for the supervisor's orders.

It answers from the first moment, and says that it is not ready until its models are loaded and the supervisor says
that all processes are; a stop meanwhile is quick. If a part of it fails, it ends and is replaced.
"""

import asyncio
import contextlib
import gc
import logging
import socket
from collections.abc import Coroutine
from dataclasses import asdict
from functools import partial
from typing import Any

import uvloop
from fastapi import FastAPI

from service.app import Parts, WorkerSlot, create_app
from service.batching.jobs import call
from service.engine.engine import EngineError, check_one_runtime
from service.http.access_log import AccessLog
from service.http.api_keys import BadKeyFile
from service.http_server.connection import ClientTimeouts
from service.http_server.overload import OverloadControl
from service.http_server.server import Drain, Server, end_at_the_latest_in, make_server
from service.model_files.repository import ModelRepositoryError, files_from, lineup_from
from service.processes.channel import MessageChannel
from service.processes.model_swap import ModelSwap
from service.processes.worker_handle import Task
from service.settings import Settings
from service.system.background_tasks import Background, act_on_failed_threads
from service.system.malloc import limit_arenas
from service.system.shared_counters import SharedLoad
from service.telemetry.metrics import Metrics
from service.telemetry.prometheus import Snapshot

log = logging.getLogger(__name__)

_TOTAL_S = 3.0  # for the supervisor to ask all processes
_NEW_OBJECTS_BEFORE_A_SEARCH = 10_000
_LONGEST_LOAD_S = 86_400.0  # infinity is more than a timer takes


def work(
    settings: Settings,
    task: Task,
    board: SharedLoad,
    listener: socket.socket,
    orders: socket.socket,
    request_log: AccessLog | None,
) -> int:
    """Serve until the supervisor says otherwise, and return the status to exit with."""
    limit_arenas()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_work(settings, task, board, listener, orders, request_log))


async def _work(
    settings: Settings,
    task: Task,
    board: SharedLoad,
    listener: socket.socket,
    orders: socket.socket,
    request_log: AccessLog | None,
) -> int:
    pipe = await MessageChannel.open(orders)
    try:
        app = create_app(settings, WorkerSlot(board, task.place, task.layout, task.lineup), request_log)
        drain = Drain(settings.drain_delay_s, settings.drain_timeout_s)
        overload = OverloadControl(app.state.parts.batcher.has_capacity, app.state.early_refusals)
        log_rejected = partial(_note_unread, app.state.parts.metrics, request_log)
        server = make_server(
            app, drain, ClientTimeouts(body_s=settings.body_timeout_s), (board, task.place), log_rejected, overload
        )
        check_one_runtime()
        return await _Worker(pipe, app, task, server, drain).serve(listener, task.listens_after_s)
    except (BadKeyFile, EngineError, ModelRepositoryError) as error:
        pipe.send({"failed": str(error)})
        await pipe.flush()
        return 1


def _note_unread(
    metrics: Metrics, request_log: AccessLog | None, status: int, code: str, identity: bytes, client: str | None
) -> None:
    metrics.log_rejected(status, code)
    if request_log is not None:
        request_log.log_rejected(status, code, identity, client)


class _Worker:
    """The application between its start and its end."""

    def __init__(self, pipe: MessageChannel, app: FastAPI, task: Task, server: Server, drain: Drain) -> None:
        self._pipe = pipe
        self._lineup = task.lineup  # what it starts with
        self._app = app
        self._server = server
        self._parts: Parts = app.state.parts
        self._drain = drain
        self._told_to_stop, self._told_to_hurry = asyncio.Event(), asyncio.Event()
        self._may_listen = asyncio.Event()
        self._totals: dict[int, asyncio.Future[Snapshot]] = {}  # that were asked for, by number
        self._questions = 0
        self._parts.metrics.total = self._total
        self._takeover = ModelSwap(self._parts, keeps_files=task.place == 0)
        self._has_failed = False
        self._background = Background(self._give_up)

    async def serve(self, listener: socket.socket, listens_after_s: float) -> int:
        """Serve until told to stop, or until a part of this process fails; end gracefully and return the exit status.

        Raises what the application's start raises.
        """
        loop = asyncio.get_running_loop()
        act_on_failed_threads(lambda: call(loop, self._give_up))
        listening = self._background.start(self._listen())
        serving = self._background.start(self._answer(listener, listens_after_s))
        async with contextlib.AsyncExitStack() as lifespan:
            start = lifespan.enter_async_context(self._app.router.lifespan_context(self._app))
            is_loaded = await _completes_before(self._told_to_stop, start)
            self._may_listen.set()
            if is_loaded:
                files = self._takeover.files_of(self._lineup)
                _tune_garbage_collection()
                self._pipe.send({"loaded": asdict(self._app.state.layout), "files": files})
                await self._told_to_stop.wait()
            end_at_the_latest_in(self._drain.longest_s, int(self._has_failed))
            self._parts.readiness.state = "draining"
            with contextlib.suppress(TimeoutError):
                has_delay = is_loaded and not self._has_failed
                await asyncio.wait_for(self._told_to_hurry.wait(), self._drain.delay_s if has_delay else 0)
            await self._server.end(serving, self._told_to_hurry)
            self._app.state.early_refusals.write_log()
        self._pipe.send(self._pong(0))  # the last statistics
        await self._pipe.flush()
        listening.cancel()
        return int(self._has_failed)

    def _give_up(self) -> None:
        """End, to be replaced: a process without one of its parts would look well and serve nobody."""
        self._has_failed = self._server.is_replaced = True
        self._told_to_stop.set()

    async def _answer(self, listener: socket.socket, listens_after_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._may_listen.wait(), min(listens_after_s, _LONGEST_LOAD_S))
        await self._server.serve([listener])
        if not self._told_to_stop.is_set():
            raise RuntimeError("the HTTP server ended by itself")

    async def _listen(self) -> None:
        async for message in self._pipe.messages():
            if "ping" in message:
                self._pipe.send(self._pong(message["ping"]))
            elif "prepare" in message:
                self._background.start(self._prepare(message))
            elif "lineup" in message:
                failure = self._takeover.take(lineup_from(message["lineup"]))
                self._pipe.send({"reply": message["number"], "failure": failure})
            elif "total" in message:
                self._note_total(message["total"], message["statistics"])
            else:
                self._obey(message["order"])
        self._told_to_stop.set()  # nobody is there to say it

    async def _prepare(self, message: dict[str, Any]) -> None:
        failure = await self._takeover.prepare(files_from(message["prepare"]))
        max_batches = self._takeover.measured()
        self._pipe.send({"reply": message["number"], "failure": failure, "max_batches": max_batches})

    async def _total(self) -> Snapshot:
        """Return the statistics of all processes, or of this one if the supervisor is silent."""
        if not self._totals:
            self._questions += 1
            self._totals[self._questions] = asyncio.get_running_loop().create_future()
            self._pipe.send({"total": self._questions})
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(next(iter(self._totals.values()))), _TOTAL_S)
        self._totals.clear()
        return self._parts.metrics.snapshot()

    def _note_total(self, number: int, total: Snapshot) -> None:
        answer = self._totals.pop(number, None)
        if answer is not None:
            answer.set_result(total)

    def _obey(self, order: str) -> None:
        if order == "serve" and self._parts.readiness.state == "loaded":
            self._parts.readiness.state = "ready"
        elif order == "stop":
            self._told_to_stop.set()
        elif order == "hurry":
            self._told_to_hurry.set()

    def _pong(self, number: int) -> dict[str, Any]:
        return {
            "pong": number,
            "is_healthy": self._parts.batcher.is_healthy(),
            "statistics": self._parts.metrics.snapshot(),
        }


def _tune_garbage_collection() -> None:
    """Leave what was loaded out of all searches for garbage, and search less often: requests make hardly any."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS_BEFORE_A_SEARCH)


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
