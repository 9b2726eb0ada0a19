"""The controller of the workers: it starts as many as the layout has, handles their messages, and replaces them."""

import asyncio
import logging
import math
from collections.abc import Callable

from service.http.readiness import Readiness
from service.inference.layout import WorkerLayout
from service.model_updates.model_rollout import ModelRollout
from service.processes.messages import (
    BecomeReady,
    Health,
    Loaded,
    Message,
    MessageError,
    Reply,
    StartFailure,
    StatisticsRequest,
)
from service.processes.worker_fleet import WorkerFleet
from service.processes.worker_handle import WorkerHandle, WorkerSpec
from service.supervisor.first_start import FirstStart
from service.supervisor.restart_policy import RestartPolicy, WorkerExit
from service.supervisor.shutdown import Shutdown
from service.supervisor.totals import Totals
from service.system.background_tasks import Background
from service.system.out_of_memory import hint_at_memory
from service.system.shared_counters import SharedLoad

log = logging.getLogger(__name__)

_LISTEN_LOADING_S = 3.0  # before a worker that replaces the only one answers that it is still loading
_SERVING_S = 1.0  # a worker that has had its models for as long serves
_FORK_RETRY_S = 1.0
_RESTART_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # by the number of failures


class WorkerController:
    """Keeps the workers of one server running until a stop is requested."""

    def __init__(
        self,
        workers: WorkerFleet,
        *,
        layout: WorkerLayout | None,
        shared_load: SharedLoad,
        rollout: ModelRollout,
        first_start: FirstStart,
        totals: Totals,
        readiness: Readiness,
        shutdown: Shutdown,
        on_ready: Callable[[WorkerLayout], None],
    ) -> None:
        """`on_ready` is called once, when all workers of the first start have loaded their models."""
        self._workers = workers
        self._layout = layout
        self._shared_load = shared_load
        self._rollout = rollout
        self._first_start = first_start
        self._totals = totals
        self._readiness = readiness
        self._shutdown = shutdown
        self._on_ready = on_ready
        self._restarts = RestartPolicy(_RESTART_DELAYS_S)
        self._tasks = Background(lambda: None)

    def start_all(self) -> None:
        """Start every worker of the layout; only the first one if it has to measure the layout."""
        for index in range(1 if self._layout is None else self._layout.processes):
            self._start(index)

    def note_exit(self, pid: int, code: int) -> None:
        """Note that a child process has ended, which may be a worker, with its exit code or minus its signal."""
        for worker in self._workers:
            if worker.pid == pid:
                self._tasks.start(self._handle_exit(worker, code))

    def _start(self, index: int, delay_s: float = 0.0) -> None:
        self._tasks.start(
            self._start_after(delay_s, index), on_failure=lambda: self._handle_failed_fork(index, "it failed")
        )

    async def _start_after(self, delay_s: float, index: int) -> None:
        await asyncio.sleep(delay_s)
        if self._shutdown.is_requested:
            return
        spec = WorkerSpec(index, self._layout, self._listens_after_s(index), self._rollout.serving_set)
        try:
            worker = await self._workers.start(spec)
        except OSError as error:  # the system has no process, file or memory left
            self._handle_failed_fork(index, error.strerror or "unknown error")
            return
        if worker is not None:
            self._tasks.start(self._receive(worker), on_failure=lambda: worker.kill("it sent an invalid message"))

    def _handle_failed_fork(self, index: int, reason: str) -> None:
        if not self._readiness.is_ready:
            self._shutdown.fail_start(
                f"no process can be started: {reason}; raise the limit of processes, files or memory"
            )
            return
        self._restarts.note_failure()
        log.error("no process can be started: %s; retrying", reason)
        self._start(index, max(self._restarts.delay_s, _FORK_RETRY_S))

    def _listens_after_s(self, index: int) -> float:
        """A loading worker takes no clients while others serve; if there are no others, it answers "not ready"."""
        if not self._readiness.is_ready:
            return 0.0 if index == 0 else math.inf
        return math.inf if self._workers.has_served_for(0.0) else _LISTEN_LOADING_S

    async def _receive(self, worker: WorkerHandle) -> None:
        async for message in worker.messages():
            self._handle(worker, message)

    def _handle(self, worker: WorkerHandle, message: Message) -> None:
        match message:
            case Loaded(layout=layout):
                loaded = self._handle_loaded(worker, layout)
                self._tasks.start(loaded, on_failure=lambda: worker.kill("it could not be brought up to date"))
            case StatisticsRequest(number=number):
                self._tasks.start(self._totals.reply(worker, number))
            case Health(is_healthy=False):
                worker.kill("its engine hangs")
            case Health() | Reply() | StartFailure():
                pass  # the handle has noted it
            case _:
                raise MessageError(f"unexpected message of a worker: {message.kind}")

    async def _handle_loaded(self, worker: WorkerHandle, layout: WorkerLayout) -> None:
        failure = await self._rollout.bring_up_to_date(worker)
        if failure is not None:
            worker.failure = failure
            worker.kill("its models differ")
            return
        if self._shutdown.is_requested:
            return
        if self._layout is None:
            self._layout = layout
            for index in range(1, layout.processes):
                self._start(index)
        if self._readiness.is_ready:
            worker.send(BecomeReady())
        elif self._workers.are_loaded(layout.processes):
            self._readiness.note_loaded()
            self._readiness.become_ready()
            self._workers.send(BecomeReady())
            self._on_ready(layout)

    async def _handle_exit(self, worker: WorkerHandle, code: int) -> None:
        await worker.drain_messages()
        self._workers.remove(worker)
        self._shared_load.clear(worker.index)
        self._totals.keep(worker)
        if not self._shutdown.is_requested:
            self._replace(worker, code)

    def _replace(self, worker: WorkerHandle, code: int) -> None:
        reason = worker.killed_because or (f"signal {-code}" if code < 0 else f"status {code}")
        self._totals.count("resnet_process_deaths", reason)
        hint = "" if worker.killed_because else hint_at_memory(code)
        if not self._readiness.is_ready:
            self._first_start.note_failure(
                worker.failure or f"a process ended while it started: {reason}{hint or '; the log may show the cause'}"
            )
            return
        worker_exit = WorkerExit(code, worker.is_loaded, worker.healthy_s, worker.killed_because is not None)
        # Workers that fail as soon as they serve do not count: together they give no service.
        others_serve = self._workers.has_served_for(_SERVING_S if worker.is_loaded else 0.0)
        delay_s = self._restarts.delay_after(worker_exit, others_serve=others_serve)
        if delay_s is None:
            failures = self._restarts.failures
            log.error("process %d ended: %s; %d failures in a row are too many", worker.pid, reason + hint, failures)
            self._shutdown.request(status=max(code, 1))  # 70: a broken GPU
        else:
            log.error("process %d ended: %s; it is replaced", worker.pid, worker.failure or reason + hint)
            self._start(worker.index, delay_s)
