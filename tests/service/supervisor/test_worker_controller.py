"""Workers are started by the layout, become ready together, and are replaced when they end."""

import asyncio
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.http.readiness import Readiness
from service.inference.layout import WorkerLayout
from service.model_files.repository import ServingSet
from service.model_updates.model_rollout import ModelRollout
from service.model_updates.version_states import VersionStates
from service.processes.messages import BecomeReady, Health, Loaded, Ping, StatisticsReply, StatisticsRequest
from service.processes.worker_fleet import WorkerFleet
from service.processes.worker_handle import WorkerSpec
from service.supervisor.shutdown import Shutdown
from service.supervisor.totals import Totals
from service.supervisor.worker_controller import WorkerController
from service.system.shared_counters import SharedLoad
from service.telemetry.prometheus import merge
from tests.support.fake_worker import FakeWorker

pytestmark = pytest.mark.anyio

TWO = WorkerLayout(2, 1)
LOADED = Loaded(TWO, ())


class Failures:
    """A first start that only notes its failures."""

    def __init__(self) -> None:
        self.reasons: asyncio.Queue[str] = asyncio.Queue()

    def note_failure(self, reason: str) -> None:
        self.reasons.put_nowait(reason)


class Server:
    """A controller whose workers are fakes."""

    def __init__(self) -> None:
        self.started: asyncio.Queue[FakeWorker] = asyncio.Queue()
        self.specs: list[WorkerSpec] = []
        self.errors: list[OSError] = []  # of the next forks
        self.ready: asyncio.Queue[WorkerLayout] = asyncio.Queue()
        self.readiness, self.shutdown, self.first_start = Readiness(), Shutdown(), Failures()
        self.load = SharedLoad(2)
        start: Any = self._start
        self.workers = WorkerFleet(start, 10.0)
        self.totals = Totals(self.workers, self.readiness)

    async def _start(self, spec: WorkerSpec) -> FakeWorker:
        if self.errors:
            raise self.errors.pop()
        self.specs.append(spec)
        worker = FakeWorker(spec.index)
        worker.pid += 10 * len(self.specs)
        worker.is_loaded = False
        self.started.put_nowait(worker)
        return worker

    def controller(self, layout: WorkerLayout | None) -> WorkerController:
        first_start: Any = self.first_start
        return WorkerController(
            self.workers,
            layout=layout,
            shared_load=self.load,
            rollout=ModelRollout(ServingSet("a", ()), VersionStates(lambda _: None), self.workers),
            first_start=first_start,
            totals=self.totals,
            readiness=self.readiness,
            shutdown=self.shutdown,
            on_ready=self.ready.put_nowait,
        )

    async def next_worker(self, *, is_loaded: bool = True) -> FakeWorker:
        worker = await self.started.get()
        if is_loaded:
            worker.is_loaded = True
            worker.sends(LOADED)
        return worker


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    yield Server()


async def ready(server: Server) -> tuple[WorkerController, FakeWorker, FakeWorker]:
    """Return the controller and its two workers once the server is ready."""
    controller = server.controller(TWO)
    controller.start_all()
    workers = await server.next_worker(), await server.next_worker()
    await server.ready.get()
    return controller, *workers


async def test_the_first_worker_decides_how_many_there_are_and_all_become_ready_together(server: Server) -> None:
    server.controller(None).start_all()
    first = await server.next_worker()
    second = await server.next_worker(is_loaded=False)
    assert not server.readiness.is_ready
    second.is_loaded = True
    second.sends(LOADED)
    assert await server.ready.get() == TWO
    assert server.readiness.is_ready
    assert [(spec.index, spec.layout) for spec in server.specs] == [(0, None), (1, TWO)]
    assert BecomeReady() in first.received and BecomeReady() in second.received


async def test_a_worker_that_ends_is_replaced_and_counted_and_its_load_is_cleared(server: Server) -> None:
    controller, first, _ = await ready(server)
    server.load.write(0, waiting=3, outstanding=4)
    controller.note_exit(first.pid, -signal.SIGSEGV)
    replacement = await server.next_worker()
    await replacement.has_received(BecomeReady())
    assert (replacement.index, server.load.outstanding()) == (0, 0)
    assert (await server.totals.collect())["counters"]["resnet_process_deaths\nsignal 11"] == [1]


async def test_the_end_of_another_process_changes_nothing(server: Server) -> None:
    controller, _, _ = await ready(server)
    controller.note_exit(1, 0)
    await asyncio.sleep(0)
    assert (len(server.workers), server.started.empty()) == (2, True)


async def test_a_worker_whose_engine_hangs_or_that_sends_an_unexpected_message_is_killed(server: Server) -> None:
    _, first, second = await ready(server)
    first.sends(Health(1, is_healthy=False, statistics=merge(())))
    await first.was_killed.wait()
    assert first.killed_because == "its engine hangs"
    second.sends(Ping(1))
    await second.was_killed.wait()
    assert second.killed_because == "it sent an invalid message"


async def test_a_worker_receives_the_statistics_that_it_requests(server: Server) -> None:
    _, first, _ = await ready(server)
    first.sends(StatisticsRequest(7))
    while not (replies := [each for each in first.received if isinstance(each, StatisticsReply)]):  # noqa: ASYNC110  # no event announces figures that no test knows
        await asyncio.sleep(0.001)
    assert (replies[0].number, "process_open_fds" in replies[0].statistics["gauges"]) == (7, True)


async def test_failures_in_a_row_end_the_server_with_the_status_of_the_last(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.supervisor.worker_controller._RESTART_DELAYS_S", (0.0, 0.0))
    controller, first, second = await ready(server)
    second.is_loaded = False  # it does not serve
    controller.note_exit(first.pid, 1)
    failing = await server.next_worker(is_loaded=False)
    controller.note_exit(failing.pid, 70)
    await server.shutdown.wait()
    assert server.shutdown.exit_status() == 70


async def test_a_worker_that_ends_before_the_server_is_ready_fails_the_start(server: Server) -> None:
    controller = server.controller(TWO)
    controller.start_all()
    worker = await server.next_worker(is_loaded=False)
    worker.failure = "the model is bad"
    controller.note_exit(worker.pid, 1)
    assert await server.first_start.reasons.get() == "the model is bad"


async def test_a_system_without_processes_fails_the_start_and_later_is_retried(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.supervisor.worker_controller._FORK_RETRY_S", 0.0)
    controller, first, _ = await ready(server)
    server.errors = [OSError(11, "Resource temporarily unavailable")]
    controller.note_exit(first.pid, 1)
    assert (await server.next_worker()).index == 0
    starting = Server()
    starting.errors = [OSError(11, "Resource temporarily unavailable")]
    starting.controller(WorkerLayout(1, 1)).start_all()
    await starting.shutdown.wait()
    assert starting.shutdown.has_start_failure
