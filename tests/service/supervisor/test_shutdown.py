"""The request to stop, and the end of the workers."""

import asyncio

import pytest

from service.processes.messages import Stop, StopNow
from service.supervisor.shutdown import Shutdown, StartFailed
from tests.support.fake_worker import FakeWorker, fleet_of

pytestmark = pytest.mark.anyio


async def test_the_exit_status_is_that_of_the_request() -> None:
    shutdown = Shutdown()
    assert not shutdown.is_requested
    shutdown.request(status=70)
    shutdown.on_signal()  # later signals do not change it
    await shutdown.wait()
    assert (shutdown.is_requested, shutdown.exit_status()) == (True, 70)


async def test_a_failed_start_is_raised_with_its_reason() -> None:
    shutdown = Shutdown()
    shutdown.fail_start("no memory")
    assert shutdown.is_requested and shutdown.has_start_failure
    with pytest.raises(StartFailed, match="no memory"):
        shutdown.exit_status()


async def test_workers_are_stopped_and_a_second_signal_cuts_their_drain_short() -> None:
    worker = FakeWorker(0)
    fleet, shutdown = await fleet_of(worker), Shutdown()
    shutdown.on_signal()
    stopping = asyncio.create_task(shutdown.stop_workers(fleet, longest_s=60))
    await worker.has_received(Stop())
    shutdown.on_signal()
    await worker.has_received(StopNow())
    fleet.remove(worker)  # type: ignore[arg-type]
    await stopping
    assert worker.killed_because is None
    assert worker.received == [Stop(), StopNow()]


async def test_a_worker_that_does_not_stop_in_time_is_killed() -> None:
    worker = FakeWorker(0)
    await Shutdown().stop_workers(await fleet_of(worker), longest_s=0.01)
    assert worker.killed_because == "it did not stop in time"


async def test_without_workers_there_is_nothing_to_wait_for() -> None:
    await Shutdown().stop_workers(await fleet_of(), longest_s=60)
