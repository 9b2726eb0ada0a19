"""A failed first start: the workers end, then older versions are tried once, or the server ends."""

import asyncio
from typing import Any

import pytest

from service.http.readiness import Readiness
from service.model_files.repository import ModelRepositoryError, ServingSet
from service.processes.worker_fleet import WorkerFleet
from service.supervisor.first_start import FirstStart
from service.supervisor.shutdown import Shutdown, StartFailed
from tests.support.fake_worker import FakeWorker, fleet_of

pytestmark = pytest.mark.anyio

OLDER = ServingSet("older", ())


class Fallback:
    """Offers an older set of versions, or none."""

    def __init__(self, *, has_alternatives: bool) -> None:
        self.has_alternatives = has_alternatives
        self.reasons: list[str] = []

    async def choose(self, reason: str) -> ServingSet:
        self.reasons.append(reason)
        if not self.has_alternatives:
            raise ModelRepositoryError(reason)
        return OLDER

    async def wait_until_overdue(self) -> str:
        return "it took too long"


class Start:
    """A first start, and what became of it."""

    def __init__(self, fleet: WorkerFleet, *, has_alternatives: bool, readiness: Readiness | None = None) -> None:
        self.shutdown = Shutdown()
        self.restarted_with = asyncio.Queue[ServingSet]()
        self.fallback: Any = Fallback(has_alternatives=has_alternatives)
        restart = self.restarted_with.put_nowait
        self.first_start = FirstStart(self.fallback, fleet, readiness or Readiness(), self.shutdown, restart=restart)


async def test_all_workers_end_before_older_versions_start_and_the_first_reason_counts() -> None:
    failed, other = FakeWorker(0), FakeWorker(1)
    fleet = await fleet_of(failed, other)
    start = Start(fleet, has_alternatives=True)
    fleet.remove(failed)  # type: ignore[arg-type]
    start.first_start.note_failure("the model is bad")
    assert (other.killed_because, start.fallback.reasons) == ("another could not start", [])
    fleet.remove(other)  # type: ignore[arg-type]
    start.first_start.note_failure("another could not start")
    assert await start.restarted_with.get() == OLDER
    assert start.fallback.reasons == ["the model is bad"]
    assert not start.shutdown.is_requested


async def test_without_alternatives_the_server_ends_with_the_reason() -> None:
    start = Start(await fleet_of(), has_alternatives=False)
    start.first_start.note_failure("the model is bad")
    await start.shutdown.wait()
    with pytest.raises(StartFailed, match="the model is bad"):
        start.shutdown.exit_status()


async def test_a_start_that_takes_too_long_fails_only_if_other_versions_could_serve() -> None:
    loading = FakeWorker(0)
    fleet = await fleet_of(loading)
    await Start(fleet, has_alternatives=False).first_start.limit_duration()
    await Start(fleet, has_alternatives=True, readiness=Readiness("ready")).first_start.limit_duration()
    assert loading.killed_because is None
    await Start(fleet, has_alternatives=True).first_start.limit_duration()
    assert loading.killed_because == "another could not start"
