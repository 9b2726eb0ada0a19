"""The process that its operator sees: it starts the workers, watches them, replaces what dies or hangs, and ends them.

It owns the signals, the admin port and a pipe to each worker, and stays small: no framework, no engine. A worker is
asked every second how it is. Its event loop has to answer, and says whether its engine threads do; one that
does not is killed and replaced. Ticks are counted, not seconds: a machine that slept is no reason to kill anybody.
"""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
from collections.abc import Coroutine
from typing import Any, Literal, get_args

from service.admin import Gate, create_admin_app
from service.board import Board
from service.connection import Patience
from service.examiner import Examiner
from service.exposition import Snapshot, added, counted, process_snapshot, render, without_gauges
from service.greeting import greeting
from service.layout import Layout
from service.log_lines import RequestLog
from service.offspring import SIGNALS, Offspring, Task, Work, reaped
from service.out_of_memory import hint_at_memory
from service.readiness import Readiness
from service.reloads import Outcome, Reloads, Repository
from service.repository import VersionState
from service.server import Drain, address_of, make_server

log = logging.getLogger(__name__)

_TICK_S = 1.0
_TICKS_WITHOUT_ANSWER = 7  # an event loop that is silent for longer hangs
_SCRAPE_S = 1.0  # for fresh statistics; of a worker that does not answer, the last ones count
_LONGEST_SILENCE_S = 3.0  # before a worker that replaces the only one says that it is still loading
_OWN_END_S = 1.0  # beyond the workers' own limit
_STEADY_S = 10.0  # a worker that served for as long was well
_DELAYS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # before the next start, after so many failures in a row


class StartFailed(Exception):
    """The first worker could not start. The message is one line for an operator."""


class Supervisor:
    """Runs the workers of one server."""

    def __init__(
        self,
        work: Work,
        *,
        board: Board,
        listener: socket.socket,
        drain: Drain,
        layout: Layout | None,
        repository: Repository,
        gate: Gate,
        request_log: RequestLog | None = None,
        needs_key: bool = False,
    ) -> None:
        """`layout` is None if the first worker shall find it by measuring the default model."""
        self._work = work
        self._board = board
        self._listener = listener
        self._drain = drain
        self._layout = layout
        self._address = address_of(listener)
        self._admin_address = ""
        self._workers: dict[int, Offspring] = {}  # by place
        self._gate = gate
        self._request_log = request_log
        self._needs_key = needs_key
        self._readiness = Readiness()
        self._examiner = Examiner(repository.examination, repository.load_timeout_s)
        self._reloads = Reloads(
            repository,
            examine=self._examiner.examine,
            workers=lambda: list(self._workers.values()),
            count=lambda outcome: self._count("resnet_reloads", outcome),
        )
        self._reload_is_wanted = asyncio.Event()
        self._failures = 0  # in a row
        # What the supervisor has counted, and workers that are no more. Series begin at 0, not with their first event.
        self._ended: Snapshot = added(counted("resnet_reloads", outcome, times=0) for outcome in get_args(Outcome))
        self._tasks: set[asyncio.Task[None]] = set()
        self._told_to_stop, self._told_to_hurry, self._all_gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._status = 0
        self._start_failure: str | None = None

    async def run(self, admin_listener: socket.socket) -> int:
        """Serve until told to stop, and return the exit status. Raises StartFailed."""
        self._watch_signals()
        self._admin_address = address_of(admin_listener)
        admin = make_server(
            create_admin_app(self.scrape, self._change, self._readiness, self._gate, self._request_log),
            self._drain,
            Patience(),
        )
        serving_admin = asyncio.create_task(admin.serve([admin_listener]))
        for place in range(1 if self._layout is None else self._layout.processes):
            self._soon(self._start(place))
        running = [asyncio.create_task(work) for work in (self._tick_for_ever(), self._reload_for_ever())]
        await self._told_to_stop.wait()
        for task in running:
            task.cancel()
        await self._stop()
        admin.should_exit = admin.force_exit = True
        await serving_admin
        self._let_go_of_signals()
        if self._start_failure is not None:
            raise StartFailed(self._start_failure)
        log.info("stopped")
        return self._status

    async def scrape(self) -> bytes:
        """Return the statistics of all processes, those that have ended included, in Prometheus' text format."""
        return render(await self._total())

    async def _change(self, action: Literal["load", "unload"], name: str) -> list[VersionState]:
        if self._told_to_stop.is_set():
            self._readiness.check_ready()
        return await self._reloads.change(action, name)

    async def _total(self) -> Snapshot:
        answers = [asyncio.ensure_future(worker.ping()) for worker in self._workers.values()]
        if answers:
            _, late = await asyncio.wait(answers, timeout=_SCRAPE_S)
            for answer in late:
                answer.cancel()
        # Not those of before: who was buried meanwhile is counted among those that have ended.
        return added((self._ended, process_snapshot(), *(worker.statistics for worker in self._workers.values())))

    async def _tell_total(self, worker: Offspring, number: int) -> None:
        worker.tell_total(number, await self._total())

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._be_told)
        loop.add_signal_handler(signal.SIGCHLD, self._reap)
        loop.add_signal_handler(signal.SIGHUP, self._reload_is_wanted.set)

    def _let_go_of_signals(self) -> None:
        """Whoever signals now is too late: the loop would let a signal end the process, with another status."""
        for number in SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)

    def _be_told(self) -> None:
        (self._told_to_hurry if self._told_to_stop.is_set() else self._told_to_stop).set()

    def _soon(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _start(self, place: int, delay_s: float = 0.0) -> None:
        await asyncio.sleep(delay_s)
        task = Task(place, self._layout, self._listens_after_s(place), self._reloads.lineup)
        worker = await Offspring.start(self._work, task, self._listener)
        self._workers[place] = worker
        self._soon(self._listen(worker))

    def _listens_after_s(self, place: int) -> float:
        """While others serve, nobody should meet a worker that cannot; if there is no other, one has to say so."""
        if not self._is_ready:
            return 0.0 if place == 0 else math.inf
        return math.inf if any(worker.is_loaded for worker in self._workers.values()) else _LONGEST_SILENCE_S

    async def _listen(self, worker: Offspring) -> None:
        async for message in worker.messages():
            if "loaded" in message:
                self._soon(self._note_loaded(worker, Layout(**message["loaded"])))
            elif "total" in message:
                self._soon(self._tell_total(worker, message["total"]))
            elif not worker.is_sound:
                self._kill(worker, "its engine hangs")

    async def _note_loaded(self, worker: Offspring, layout: Layout) -> None:
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
                self._soon(self._start(place))
        if self._is_ready:
            worker.order("serve")
        elif len(self._workers) == layout.processes and all(one.is_loaded for one in self._workers.values()):
            self._readiness.state = "ready"
            self._order_all("serve")
            self._greet(layout)

    def _greet(self, layout: Layout) -> None:
        for line in greeting(os.getpid(), layout, self._address, self._admin_address, needs_key=self._needs_key):
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

    def _count(self, *labels: str) -> None:
        self._ended = added((self._ended, counted(*labels)))

    def _order_all(self, order: str) -> None:
        for worker in self._workers.values():
            worker.order(order)

    async def _tick_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._reap()  # those too that ended before we listened
            for worker in self._workers.values():
                if worker.is_loaded and worker.unanswered >= _TICKS_WITHOUT_ANSWER:
                    self._kill(worker, "its event loop hangs")
                else:
                    worker.unanswered += 1
                    self._soon(worker.ping())

    def _kill(self, worker: Offspring, reason: str) -> None:
        if worker.killed_because is None:
            worker.killed_because = reason
            worker.kill()

    def _reap(self) -> None:
        for pid, status in reaped():  # of others, too: in a container every orphan is ours
            self._examiner.note_end(pid, os.waitstatus_to_exitcode(status))
            for worker in list(self._workers.values()):
                if worker.pid == pid:
                    self._soon(self._bury(worker, os.waitstatus_to_exitcode(status)))

    async def _bury(self, worker: Offspring, code: int) -> None:
        await worker.last_words()
        del self._workers[worker.place]
        self._board.clear(worker.place)
        self._ended = added((self._ended, without_gauges(worker.statistics)))
        if not self._told_to_stop.is_set():
            self._replace(worker, code)
        elif not self._workers:
            self._all_gone.set()

    def _replace(self, worker: Offspring, code: int) -> None:
        reason = worker.killed_because or (f"signal {-code}" if code < 0 else f"status {code}")
        self._count("resnet_process_deaths", reason)
        hint = "" if worker.killed_because else hint_at_memory(code)
        if not self._is_ready:
            self._start_failure = worker.failure or (
                f"a process ended while it started: {reason}{hint or '; the log may say why'}"
            )
            self._told_to_stop.set()
            return
        # Somebody who kills a worker that serves may do so often; one that fails by itself, again and again, may not.
        is_failure = not worker.is_loaded or (code != -signal.SIGKILL and worker.served_s < _STEADY_S)
        self._failures = self._failures + 1 if is_failure or worker.killed_because else 0
        # Who cannot even start takes nothing from those that serve.
        is_needed = worker.is_loaded or not any(one.is_loaded for one in self._workers.values())
        if self._failures >= len(_DELAYS_S) and is_needed:
            log.error(
                "process %d ended: %s; %d failures in a row are too many", worker.pid, reason + hint, self._failures
            )
            self._status = max(code, 1)  # 70: a broken GPU
            self._told_to_stop.set()
            return
        log.error("process %d ended: %s; it is replaced", worker.pid, worker.failure or reason + hint)
        self._soon(self._start(worker.place, _DELAYS_S[min(max(0, self._failures - 1), len(_DELAYS_S) - 1)]))

    async def _stop(self) -> None:
        """Let every worker finish what it has accepted; kill what has not ended in time."""
        self._readiness.state = "draining"
        if self._start_failure is None:
            log.info("stopping: finishing what was accepted")
        self._listener.close()
        if not self._workers:
            self._all_gone.set()
        self._order_all("stop")
        hurrying = asyncio.create_task(self._pass_the_hurry_on())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._all_gone.wait(), self._drain.longest_s + _OWN_END_S)
        hurrying.cancel()
        for worker in self._workers.values():
            worker.kill()

    async def _pass_the_hurry_on(self) -> None:
        await self._told_to_hurry.wait()
        self._order_all("hurry")
