"""The running workers: starting, checking, and requests to all of them."""

import asyncio

import pytest

from service.model_files.repository import ServingSet
from service.processes.messages import BecomeReady
from service.processes.worker_fleet import WorkerFleet
from tests.support.fake_worker import FakeWorker, fleet_of, spec

pytestmark = pytest.mark.anyio

NOTHING = ServingSet("a", ())


async def test_a_closed_fleet_starts_no_more_workers() -> None:
    fleet = await fleet_of(FakeWorker(0))
    await fleet.close()
    assert await fleet.start(spec(1)) is None
    assert len(fleet) == 1


async def test_closing_waits_for_a_worker_that_is_being_started() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def start(_: object) -> FakeWorker:
        begun.set()
        await go.wait()
        return FakeWorker(0)

    fleet = WorkerFleet(start, 1.0)  # type: ignore[arg-type]
    starting = asyncio.create_task(fleet.start(spec(0)))
    await begun.wait()
    closing = asyncio.create_task(fleet.close())
    await asyncio.sleep(0)
    assert not closing.done()
    go.set()
    await asyncio.gather(starting, closing)
    assert len(fleet) == 1


async def test_the_end_of_the_last_worker_is_awaited() -> None:
    workers = [FakeWorker(0), FakeWorker(1)]
    fleet = await fleet_of(*workers)
    empty = asyncio.create_task(fleet.wait_until_empty())
    fleet.remove(workers[0])  # type: ignore[arg-type]
    await asyncio.sleep(0)
    assert not empty.done()
    fleet.remove(workers[1])  # type: ignore[arg-type]
    await empty


async def test_a_loaded_worker_that_leaves_seven_pings_unanswered_is_killed() -> None:
    silent, loading, healthy = FakeWorker(0, is_silent=True), FakeWorker(1, is_silent=True), FakeWorker(2)
    loading.is_loaded = False
    fleet = await fleet_of(silent, loading, healthy)
    for _ in range(8):
        assert silent.killed_because is None
        fleet.check()
        await asyncio.sleep(0)
        healthy.unanswered_pings = 0  # as its handle does for each reply
    assert silent.killed_because == "its event loop hangs"
    assert (loading.killed_because, healthy.killed_because) == (None, None)
    assert healthy.received == ["ping"] * 8


async def test_a_worker_whose_start_hangs_is_killed_after_two_minutes() -> None:
    loading = FakeWorker(0, is_silent=True)
    loading.is_loaded = False
    fleet = await fleet_of(loading)
    for _ in range(121):
        assert loading.killed_because is None
        fleet.check()
    assert loading.killed_because == "its start hangs"


async def test_a_request_to_all_returns_a_failure_and_leaves_out_workers_that_are_loading() -> None:
    loading = FakeWorker(2, failure="not asked")
    loading.is_loaded = False
    fleet = await fleet_of(FakeWorker(0), FakeWorker(1, failure="it is bad"), loading)
    assert await fleet.prepare(()) == "it is bad"
    assert await fleet.commit(NOTHING) is None
    assert loading.received == []


async def test_a_worker_that_does_not_reply_in_time_is_killed() -> None:
    silent, quick = FakeWorker(0, is_silent=True), FakeWorker(1)
    fleet = await fleet_of(silent, quick, load_timeout_s=0.01)
    assert await fleet.prepare(()) == "a process did not load it in time"
    assert (silent.killed_because, quick.killed_because) == ("it did not load a model in time", None)


async def test_a_fleet_without_workers_has_no_failure() -> None:
    fleet = await fleet_of()
    assert await fleet.prepare(()) is None
    await fleet.wait_until_empty()


async def test_workers_count_as_serving_by_the_time_since_they_loaded() -> None:
    worker = FakeWorker(0)
    worker.served_s = 0.5
    fleet = await fleet_of(worker)
    assert fleet.has_served_for(0.0) and not fleet.has_served_for(1.0)
    assert fleet.are_loaded(1) and not fleet.are_loaded(2)
    worker.is_loaded = False
    assert not fleet.has_served_for(0.0) and not fleet.are_loaded(1)


async def test_a_message_goes_to_all_workers() -> None:
    workers = [FakeWorker(0), FakeWorker(1)]
    (await fleet_of(*workers)).send(BecomeReady())
    assert [worker.received for worker in workers] == [[BecomeReady()], [BecomeReady()]]
