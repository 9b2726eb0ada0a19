"""The process that its operator sees: it starts the workers, watches them, replaces what dies or hangs, and ends them.

It owns the signals, the admin port and a pipe to each worker, and stays small: no framework, no engine. A worker is
asked every second how it is. Its event loop has to answer, and says whether its engine threads do; one that
does not is killed and replaced. Ticks are counted, not seconds: a machine that slept is no reason to kill anybody.
"""

import asyncio
import logging
import math
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Literal

from service.api.admin import AdminAccess, create_admin_app
from service.http.access_log import AccessLog
from service.http.readiness import Readiness
from service.http_server.connection import ClientTimeouts
from service.http_server.server import Drain, address_of, make_server
from service.inference.layout import WorkerLayout
from service.model_files.repository import ModelRepositoryError, VersionState
from service.processes.model_updates import ModelUpdater
from service.processes.model_validation import Examiner, Repository
from service.processes.restart_policy import Restarts
from service.processes.shutdown import end_all, order_all
from service.processes.signals import ignore_signals, watch_signals
from service.processes.startup_message import greeting
from service.processes.totals import Totals
from service.processes.version_fallback import FirstLineup, StartFailed
from service.processes.worker_handle import Task, Work, WorkerHandle, reap_children
from service.system.background_tasks import Background
from service.system.out_of_memory import hint_at_memory
from service.system.shared_counters import SharedLoad

log = logging.getLogger(__name__)

_TICK_S = 1.0
_TICKS_WITHOUT_ANSWER = 7  # an event loop that is silent for longer hangs
_LONGEST_SILENCE_S = 3.0  # before a worker that replaces the only one says that it is still loading
_OWN_END_S = 1.0  # beyond the workers' own limit
_STEADY_S = 10.0  # a worker that served well for as long makes up for all failures before
_SERVING_S = 1.0  # a worker that has had its models for as long serves
_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # before the next start, after so many failures


class Supervisor:
    """Runs the workers of one server."""

    def __init__(
        self,
        work: Work,
        *,
        board: SharedLoad,
        listener: socket.socket,
        drain: Drain,
        layout: WorkerLayout | None,
        repository: Repository,
        gate: AdminAccess,
        request_log: AccessLog | None = None,
        needs_key: bool = False,
    ) -> None:
        """`layout` is None if the first worker shall find it by measuring the default model."""
        self._work = work
        self._board = board
        self._listener = listener
        self._drain = drain
        self._layout = layout
        self._admin_address = ""
        self._workers: dict[int, WorkerHandle] = {}  # by place
        self._gate = gate
        self._request_log = request_log
        self._needs_key = needs_key
        self._readiness = Readiness()
        self._totals = Totals(self._workers.values)
        self._examiner = Examiner(repository.examination, repository.load_timeout_s)
        self._first_lineup = FirstLineup(repository, self._examiner.examine)
        self._reloads = ModelUpdater(
            repository,
            examine=self._examiner.examine,
            workers=lambda: list(self._workers.values()),
            count=lambda outcome: self._totals.count("resnet_reloads", outcome),
        )
        self._reload_is_wanted = asyncio.Event()
        self._restarts = Restarts(_DELAYS_S)
        self._tasks, self._loops = Background(lambda: None), Background(lambda: None)
        self._told_to_stop, self._told_to_hurry, self._all_gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._forking = asyncio.Lock()
        self._status = 0
        self._start_failure: str | None = None
        self._first_failure: str | None = None  # of a start that may be tried again, with other versions

    async def run(self, admin_listener: socket.socket) -> int:
        """Serve until told to stop, and return the exit status. Raises StartFailed."""
        watch_signals(stop=self._be_told, reload=self._reload_is_wanted.set, reap=self._reap)
        self._admin_address = address_of(admin_listener)
        admin = make_server(
            create_admin_app(self._totals.render, self._change, self._readiness, self._gate, self._request_log),
            self._drain,
            ClientTimeouts(),
        )
        serving_admin = self._tasks.start(admin.serve([admin_listener]))
        self._start_all()
        self._keep_running(self._tick_for_ever)
        self._keep_running(self._reload_for_ever)
        self._loops.start(self._limit_the_first_load())
        await self._told_to_stop.wait()
        self._loops.cancel()
        await self._stop()
        admin.should_exit = admin.force_exit = True
        await asyncio.wait((serving_admin,))
        ignore_signals()
        if self._start_failure is not None:
            raise StartFailed(self._start_failure)
        log.info("stopped")
        return self._status

    async def _change(self, action: Literal["load", "unload"], name: str) -> list[VersionState]:
        if self._told_to_stop.is_set():
            self._readiness.check_ready()
        return await self._reloads.change(action, name)

    def _be_told(self) -> None:
        (self._told_to_hurry if self._told_to_stop.is_set() else self._told_to_stop).set()

    def _keep_running(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run what lasts as long as the server; where it fails, it begins anew."""
        self._loops.start(work(), on_failure=lambda: self._keep_running(work))

    def _start_all(self) -> None:
        for place in range(1 if self._layout is None else self._layout.processes):
            self._start(place)

    def _start(self, place: int, delay_s: float = 0.0) -> None:
        self._tasks.start(self._start_one(place, delay_s), on_failure=lambda: self._note_no_start(place, "it failed"))

    async def _start_one(self, place: int, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        async with self._forking:
            if self._told_to_stop.is_set():
                return
            task = Task(place, self._layout, self._listens_after_s(place), self._reloads.lineup)
            try:
                worker = await WorkerHandle.start(self._work, task, self._listener)
            except OSError as error:  # no more processes, files or memory
                self._note_no_start(place, error.strerror or "unknown error")
                return
            self._workers[place] = worker
        self._tasks.start(
            self._listen(worker), on_failure=lambda: self._kill(worker, "what it says cannot be understood")
        )

    def _note_no_start(self, place: int, reason: str) -> None:
        if not self._is_ready:
            self._fail_start(f"no process can be started: {reason}; raise the limit of processes, files or memory")
            return
        self._restarts.note_failure()
        log.error("no process can be started: %s; it is tried again", reason)
        self._start(place, max(self._restarts.delay_s, _TICK_S))

    def _listens_after_s(self, place: int) -> float:
        """While others serve, nobody should meet a worker that cannot; if there is no other, one has to say so."""
        if not self._is_ready:
            return 0.0 if place == 0 else math.inf
        return math.inf if any(worker.is_loaded for worker in self._workers.values()) else _LONGEST_SILENCE_S

    async def _listen(self, worker: WorkerHandle) -> None:
        async for message in worker.messages():
            if "loaded" in message:
                loaded = self._note_loaded(worker, WorkerLayout(**message["loaded"]))
                self._tasks.start(loaded, on_failure=lambda: self._kill(worker, "it could not be brought up to date"))
            elif "total" in message:
                self._tasks.start(self._totals.tell(worker, message["total"]))
            elif not worker.is_healthy:
                self._kill(worker, "its engine hangs")

    async def _note_loaded(self, worker: WorkerHandle, layout: WorkerLayout) -> None:
        failure = await self._reloads.bring_up_to_date(worker)
        if failure is not None:
            worker.failure = failure
            self._kill(worker, "its models differ")
            return
        if self._told_to_stop.is_set():
            return
        if self._layout is None:
            self._layout = layout
            for place in range(1, layout.processes):
                self._start(place)
        if self._is_ready:
            worker.order("serve")
        elif len(self._workers) == layout.processes and all(one.is_loaded for one in self._workers.values()):
            self._readiness.state = "ready"
            order_all(self._workers.values(), "serve")
            self._greet(layout)

    def _greet(self, layout: WorkerLayout) -> None:
        lineup = self._reloads.lineup
        log.info("the default model is %s: %s", lineup.default, lineup.why_default)
        for line in greeting(
            os.getpid(), layout, address_of(self._listener), self._admin_address, needs_key=self._needs_key
        ):
            log.info("%s", line)

    @property
    def _is_ready(self) -> bool:
        return self._readiness.state == "ready"

    async def _reload_for_ever(self) -> None:
        """One at a time; whoever asks while one runs gets another, which sees what has changed meanwhile."""
        while True:
            await self._reload_is_wanted.wait()
            self._reload_is_wanted.clear()
            await self._reloads.reload()

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._reap()  # those too that ended before we listened
            for worker in self._workers.values():
                if worker.is_loaded and worker.unanswered >= _TICKS_WITHOUT_ANSWER:
                    self._kill(worker, "its event loop hangs")
                else:
                    worker.unanswered += 1
                    self._tasks.start(worker.ping())

    def _kill(self, worker: WorkerHandle, reason: str) -> None:
        if worker.killed_because is None:
            worker.killed_because = reason
            worker.kill()

    def _reap(self) -> None:
        for pid, status in reap_children():  # of others, too: in a container every orphan is ours
            self._examiner.note_end(pid, os.waitstatus_to_exitcode(status))
            for worker in list(self._workers.values()):
                if worker.pid == pid:
                    self._tasks.start(self._bury(worker, os.waitstatus_to_exitcode(status)))

    async def _bury(self, worker: WorkerHandle, code: int) -> None:
        await worker.drain_messages()
        del self._workers[worker.place]
        self._board.clear(worker.place)
        self._totals.keep(worker)
        if not self._told_to_stop.is_set():
            self._replace(worker, code)
        elif not self._workers:
            self._all_gone.set()

    def _replace(self, worker: WorkerHandle, code: int) -> None:
        reason = worker.killed_because or (f"signal {-code}" if code < 0 else f"status {code}")
        self._totals.count("resnet_process_deaths", reason)
        hint = "" if worker.killed_because else hint_at_memory(code)
        if not self._is_ready:
            self._note_failed_start(
                worker.failure or f"a process ended while it started: {reason}{hint or '; the log may say why'}"
            )
            return
        self._restarts.note_end(
            was_well=worker.served_well_s >= _STEADY_S,
            was_killed_from_outside=worker.is_loaded and worker.killed_because is None and code == -signal.SIGKILL,
            was_killed_here=worker.killed_because is not None,
        )
        if self._restarts.are_too_many and not self._others_serve(worker):
            failures = self._restarts.count
            log.error("process %d ended: %s; %d failures in a row are too many", worker.pid, reason + hint, failures)
            self._status = max(code, 1)  # 70: a broken GPU
            self._told_to_stop.set()
            return
        log.error("process %d ended: %s; it is replaced", worker.pid, worker.failure or reason + hint)
        self._start(worker.place, self._restarts.delay_s)

    def _others_serve(self, failed: WorkerHandle) -> bool:
        """Those that fail as soon as they serve may each have the other just loaded; that is no service."""
        least_s = _SERVING_S if failed.is_loaded else 0.0
        return any(worker.is_loaded and worker.served_s >= least_s for worker in self._workers.values())

    def _note_failed_start(self, reason: str) -> None:
        self._first_failure = self._first_failure or reason
        for worker in self._workers.values():
            self._kill(worker, "another could not start")
        if not self._workers and not self._told_to_stop.is_set():
            reason, self._first_failure = self._first_failure, None
            self._tasks.start(self._start_again(reason), on_failure=lambda: self._fail_start(reason))

    async def _start_again(self, reason: str) -> None:
        """Start with the newest good versions, if it failed with the newest ones."""
        try:
            self._reloads.begin_with(await self._first_lineup.choose(reason))
        except ModelRepositoryError as error:
            self._fail_start(str(error))
            return
        self._start_all()

    def _fail_start(self, reason: str) -> None:
        self._start_failure = reason
        self._told_to_stop.set()

    async def _limit_the_first_load(self) -> None:
        """A version that never loads may not keep those before it from serving."""
        reason = await self._first_lineup.overdue()
        if not self._is_ready and self._first_lineup.has_a_choice:
            self._note_failed_start(reason)

    async def _stop(self) -> None:
        """Let every worker finish what it has accepted; kill what has not ended in time."""
        self._readiness.state = "draining"
        if self._start_failure is None:
            log.info("stopping: finishing what was accepted")
        async with self._forking:  # a process that begins now needs the listener
            self._listener.close()
        longest_s = self._drain.longest_s + _OWN_END_S
        await end_all(self._workers.values, longest_s=longest_s, hurry=self._told_to_hurry, all_gone=self._all_gone)
