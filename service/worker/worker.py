"""A worker process: the application, its engine, and the messages of the supervisor.

It listens from the start, and is not ready until its models are loaded and the supervisor reports that all workers
are. A stop request cuts loading short. If a part of the worker fails, the worker drains, exits and is replaced.
"""

import asyncio
import contextlib
import gc
import logging
import math
import socket
from collections.abc import Coroutine
from functools import partial
from typing import Any

import uvloop
from fastapi import FastAPI

from service.access_control.api_keys import BadKeyFile
from service.access_control.rate_limits import RateLimits
from service.app import create_app
from service.batching.jobs import call_on_loop
from service.engine.engine import EngineError, check_one_runtime
from service.http.access_log import AccessLog
from service.http_server.client_timeouts import ClientTimeouts
from service.http_server.overload import OverloadControl
from service.http_server.server import Drain, Server, exit_after, make_server
from service.lifespan import AppComponents, WorkerSlot
from service.model_files.repository import ModelRepositoryError
from service.processes.channel import MessageChannel, PendingReplies
from service.processes.messages import (
    BecomeReady,
    Commit,
    Health,
    Loaded,
    Message,
    MessageError,
    Ping,
    Prepare,
    Reply,
    StartFailure,
    StatisticsReply,
    StatisticsRequest,
    Stop,
    StopNow,
)
from service.processes.worker_handle import WorkerSpec
from service.settings import Settings
from service.system.background_tasks import Background, act_on_failed_threads
from service.system.malloc import limit_arenas
from service.system.shared_counters import SharedLoad
from service.telemetry.metrics import Metrics, Sources
from service.telemetry.prometheus import Snapshot
from service.worker.model_swap import ModelSwap

log = logging.getLogger(__name__)

_STATISTICS_S = 3.0  # for the supervisor to collect the statistics of all processes
_NEW_OBJECTS_BEFORE_COLLECTION = 10_000
_LONGEST_LOAD_S = 86_400.0  # a timer takes no infinity


def run_worker(
    settings: Settings,
    spec: WorkerSpec,
    shared_load: SharedLoad,
    listener: socket.socket,
    channel: socket.socket,
    request_log: AccessLog | None,
    rate_limits: RateLimits | None = None,
) -> int:
    """Serve until the supervisor requests a stop, and return the exit status."""

    async def run() -> int:
        messages = await MessageChannel.open(channel)
        return await _run(settings, spec, shared_load, listener, messages, request_log, rate_limits)

    limit_arenas()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


async def _run(
    settings: Settings,
    spec: WorkerSpec,
    shared_load: SharedLoad,
    listener: socket.socket,
    channel: MessageChannel,
    request_log: AccessLog | None,
    rate_limits: RateLimits | None,
) -> int:
    statistics = _StatisticsClient(channel)
    slot = WorkerSlot(shared_load, spec.index, spec.layout, spec.serving_set, statistics.collect)
    try:
        app = create_app(settings, slot, request_log, rate_limits)
        drain = Drain(settings.drain_delay_s, settings.drain_timeout_s)
        components: AppComponents = app.state.components
        overload = OverloadControl(components.batcher.has_capacity, app.state.early_refusals)
        on_rejected = partial(_count_rejected, components.metrics, request_log)
        timeouts = ClientTimeouts(
            body_s=settings.body_timeout_s, connection_age_s=settings.max_connection_age_s or math.inf
        )
        server = make_server(
            app,
            drain,
            timeouts,
            shared_load=shared_load,
            worker_index=spec.index,
            on_rejected=on_rejected,
            overload=overload,
            cors_headers=app.state.access.cors_headers,
        )
        connections = server.server_state.connections
        components.metrics.add(Sources(gauges={"resnet_connections": lambda: len(connections)}))
        check_one_runtime()
        return await _Worker(channel, app, spec, server, drain, statistics).serve(listener)
    except (BadKeyFile, EngineError, ModelRepositoryError) as error:
        channel.send(StartFailure(str(error)))
        await channel.flush()
        return 1


def _count_rejected(
    metrics: Metrics, request_log: AccessLog | None, status: int, code: str, identity: bytes, client: str | None
) -> None:
    metrics.log_rejected(status, code)
    if request_log is not None:
        request_log.log_rejected(status, code, identity, client)


class _StatisticsClient:
    """Requests the statistics of all processes from the supervisor. Concurrent callers share one request."""

    def __init__(self, channel: MessageChannel) -> None:
        self._channel = channel
        self._replies = PendingReplies[Snapshot]()

    async def collect(self) -> Snapshot | None:
        """Return the sum over all processes, or None if the supervisor does not reply in time."""
        reply = self._replies.first()
        if reply is None:
            number, reply = self._replies.add()
            self._channel.send(StatisticsRequest(number))
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(asyncio.shield(reply), _STATISTICS_S)
        self._replies.forget()
        return None

    def note(self, reply: StatisticsReply) -> None:
        """Hand a reply to the callers that wait for it."""
        self._replies.resolve(reply.number, reply.statistics)


class _Worker:
    """The application between its start and its end."""

    def __init__(
        self,
        channel: MessageChannel,
        app: FastAPI,
        spec: WorkerSpec,
        server: Server,
        drain: Drain,
        statistics: _StatisticsClient,
    ) -> None:
        self._channel = channel
        self._app = app
        self._spec = spec
        self._server = server
        self._drain = drain
        self._statistics = statistics
        self._components: AppComponents = app.state.components
        self._swap = ModelSwap(self._components, stores_copies=spec.index == 0)
        self._stop_requested, self._stop_now_requested = asyncio.Event(), asyncio.Event()
        self._may_listen = asyncio.Event()
        self._has_failed = False
        self._background = Background(self._fail)

    async def serve(self, listener: socket.socket) -> int:
        """Serve until a stop is requested or a part of this process fails; drain, and return the exit status.

        Raises what the application's start raises.
        """
        loop = asyncio.get_running_loop()
        act_on_failed_threads(lambda: call_on_loop(loop, self._fail))
        receiving = self._background.start(self._receive())
        serving = self._background.start(self._serve_http(listener))
        async with contextlib.AsyncExitStack() as lifespan:
            start = lifespan.enter_async_context(self._app.router.lifespan_context(self._app))
            is_loaded = await _completes_before(self._stop_requested, start)
            self._may_listen.set()
            if is_loaded:
                files = self._swap.describe(self._spec.serving_set)
                _tune_garbage_collection()
                self._channel.send(Loaded(self._app.state.layout, tuple(files)))
                await self._stop_requested.wait()
            exit_after(self._drain.longest_s, int(self._has_failed))
            self._components.readiness.start_draining()
            with contextlib.suppress(TimeoutError):
                has_delay = is_loaded and not self._has_failed
                await asyncio.wait_for(self._stop_now_requested.wait(), self._drain.delay_s if has_delay else 0)
            await self._server.end(serving, self._stop_now_requested)
            self._app.state.early_refusals.write_log()
        self._send_health(0)  # the last statistics
        await self._channel.flush()
        receiving.cancel()
        return int(self._has_failed)

    def _fail(self) -> None:
        """Drain and exit, to be replaced: a worker without one of its parts would seem healthy and serve nothing."""
        self._has_failed = self._server.is_replaced = True
        self._stop_requested.set()

    async def _serve_http(self, listener: socket.socket) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._may_listen.wait(), min(self._spec.listens_after_s, _LONGEST_LOAD_S))
        await self._server.serve([listener])
        if not self._stop_requested.is_set():
            raise RuntimeError("the HTTP server ended by itself")

    async def _receive(self) -> None:
        async for message in self._channel.messages():
            self._handle(message)
        self._stop_requested.set()  # the supervisor has ended

    def _handle(self, message: Message) -> None:
        match message:
            case Ping(number=number):
                self._send_health(number)
            case Prepare():
                self._background.start(self._prepare(message))
            case Commit(number=number, serving_set=serving_set):
                self._channel.send(Reply(number, self._swap.commit(serving_set)))
            case StatisticsReply():
                self._statistics.note(message)
            case BecomeReady():
                self._components.readiness.become_ready()
            case Stop():
                self._stop_requested.set()
            case StopNow():
                self._stop_now_requested.set()
            case _:
                raise MessageError(f"unexpected message of the supervisor: {message.kind}")

    async def _prepare(self, request: Prepare) -> None:
        failure = await self._swap.prepare(request.files)
        self._channel.send(Reply(request.number, failure, self._swap.max_batches()))

    def _send_health(self, number: int) -> None:
        is_healthy, statistics = self._components.batcher.is_healthy(), self._components.metrics.snapshot()
        self._channel.send(Health(number, is_healthy, statistics))


def _tune_garbage_collection() -> None:
    """Exclude loaded objects from garbage collection and collect less often: requests create few cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS_BEFORE_COLLECTION)


async def _completes_before(event: asyncio.Event, work: Coroutine[Any, Any, object]) -> bool:
    """Return whether the work was done before the event, which cancels it. Raises what the work raises."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(event.wait())
    await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not working.done():
        working.cancel()
        await asyncio.wait((working,))
        return False
    working.result()
    return True
