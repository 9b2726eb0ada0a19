"""The serving set changes in all workers or in none."""

from dataclasses import replace
from pathlib import Path

import pytest

from service.model_files.repository import ModelFile, ServingSet
from service.model_updates.model_rollout import ModelRollout
from service.model_updates.version_states import VersionStates
from tests.support.fake_worker import FakeWorker, fleet_of

pytestmark = pytest.mark.anyio

ONE = ModelFile("a", "1", Path("a/1"), "1" * 64, has_card=True)
TWO = ModelFile("a", "2", Path("a/2"), "2" * 64, has_card=True)
OTHER = ModelFile("b", "1", Path("b/1"), "3" * 64, has_card=True)


async def rollout_to(*workers: FakeWorker) -> ModelRollout:
    rollout = ModelRollout(ServingSet("a", (ONE, OTHER)), VersionStates(lambda _: None), await fleet_of(*workers))
    for worker in workers:
        worker.files = (ONE, OTHER)
        assert await rollout.bring_up_to_date(worker) is None  # type: ignore[arg-type]
        worker.received.clear()
    return rollout


async def test_a_new_version_is_loaded_by_all_workers_before_all_switch() -> None:
    workers = [FakeWorker(0), FakeWorker(1)]
    rollout = await rollout_to(*workers)
    assert await rollout.replace_model("a", [TWO]) is None
    assert rollout.serving_set.files == (TWO, OTHER)
    assert [worker.received for worker in workers] == [["prepare", "commit"]] * 2
    assert all(worker.files == (TWO, OTHER) for worker in workers)
    assert rollout.accepted == {ONE.sha256, TWO.sha256, OTHER.sha256}


async def test_if_one_worker_fails_to_load_nothing_changes() -> None:
    good, bad = FakeWorker(0), FakeWorker(1, failure="it is bad")
    rollout = await rollout_to(good, bad)
    assert await rollout.replace_model("a", [TWO]) == "it is bad"
    assert rollout.serving_set.files == good.files == bad.files == (ONE, OTHER)
    assert TWO.sha256 not in rollout.accepted


async def test_an_unloaded_model_needs_no_loading() -> None:
    worker = FakeWorker(0)
    rollout = await rollout_to(worker)
    assert await rollout.replace_model("b", []) is None
    assert (worker.received, worker.files) == (["commit"], (ONE,))


async def test_all_workers_use_the_batch_size_that_the_first_one_measured() -> None:
    worker = FakeWorker(0)
    rollout = await rollout_to(worker)
    worker.max_batches = {"2" * 64: 16}
    await rollout.replace_model("a", [TWO])
    worker.max_batches = {"2" * 64: 4}
    await rollout.replace_model("a", [TWO])
    assert [file.max_batch for file in rollout.files_of("a")] == [16]


async def test_a_replacement_of_a_worker_is_brought_up_to_date() -> None:
    rollout = await rollout_to(FakeWorker(0))
    await rollout.replace_model("a", [TWO])
    same, old = FakeWorker(1), FakeWorker(2)
    same.files, old.files = (TWO, OTHER), (ONE, OTHER)
    for worker in (same, old):
        assert await rollout.bring_up_to_date(worker) is None  # type: ignore[arg-type]
    assert (same.received, old.received) == (["commit"], ["prepare", "commit"])
    failing = FakeWorker(3, failure="it is gone")
    assert await rollout.bring_up_to_date(failing) == "it is gone"  # type: ignore[arg-type]


async def test_the_first_worker_sets_the_digests_and_the_state_of_what_serves() -> None:
    bare = tuple(replace(file, sha256=None, has_card=None) for file in (ONE, OTHER))
    rollout = ModelRollout(ServingSet("a", bare), VersionStates(lambda _: None), await fleet_of())
    assert not rollout.has_started
    worker = FakeWorker(0)
    worker.files = (ONE, OTHER)
    await rollout.bring_up_to_date(worker)  # type: ignore[arg-type]
    assert rollout.has_started
    assert rollout.serving_set.files == (ONE, OTHER)
    assert [state.state for state in rollout.serving_set.states] == ["READY", "READY"]
