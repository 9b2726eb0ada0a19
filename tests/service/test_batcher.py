"""The queue between the event loop and the engine: fair batches, and an answer for everyone."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import pytest

from service.batcher import Batcher
from service.errors import BadImage, EngineFailed, Expired, NotReady, Overloaded, ServiceError

pytestmark = pytest.mark.anyio


class GatedModel:
    """Answers a number with its double, one batch each time the gate is opened, and notes the batches."""

    def __init__(self, max_batch: int = 8) -> None:
        self.max_batch = max_batch
        self.batches: list[list[int]] = []
        self.gate = threading.Semaphore(0)
        self._begun = threading.Semaphore(0)

    def answer_batch(self, jobs: list[int]) -> list[int | ServiceError]:
        self.batches.append(jobs)
        self._begun.release()
        self.gate.acquire()
        return [2 * job for job in jobs]

    async def has_begun(self) -> None:
        """Wait until one more batch is in the model."""
        await asyncio.to_thread(self._begun.acquire)

    def open(self) -> None:
        self.gate.release(1000)


class OpenModel:
    """Answers at once: 13 breaks the whole batch, a negative number is a bad picture."""

    max_batch = 8

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def answer_batch(self, jobs: list[int]) -> list[int | ServiceError]:
        self.batches.append(jobs)
        if 13 in jobs:
            raise RuntimeError("thirteen")
        return [2 * job if job >= 0 else BadImage("negative") for job in jobs]


@contextlib.asynccontextmanager
async def running(*, threads: int = 1, max_waiting: int = 100, max_age_s: float = 60.0) -> AsyncIterator[Batcher]:
    batcher = Batcher(threads=threads, max_waiting=max_waiting, max_age_s=max_age_s)
    batcher.start()
    yield batcher
    await batcher.stop(10)


async def submitted(batcher: Batcher, model: GatedModel | OpenModel, *jobs: int) -> list["asyncio.Task[int]"]:
    """Submit the jobs and return once all are in the queue."""
    tasks = [asyncio.create_task(batcher.submit(model, job)) for job in jobs]
    await asyncio.sleep(0)  # each task runs up to its wait
    return tasks


async def test_a_lone_image_is_answered_without_waiting_for_others() -> None:
    async with running() as batcher:
        assert await batcher.submit(OpenModel(), 4) == 8


async def test_images_arriving_while_the_engine_is_busy_share_the_next_batch() -> None:
    model = GatedModel()
    async with running() as batcher:
        first = await submitted(batcher, model, 1)
        await model.has_begun()
        rest = await submitted(batcher, model, 2, 3, 4)
        model.open()
        assert await asyncio.gather(*first, *rest) == [2, 4, 6, 8]
    assert model.batches == [[1], [2, 3, 4]]


async def test_no_batch_is_larger_than_the_model_allows() -> None:
    model = GatedModel(max_batch=2)
    async with running() as batcher:
        first = await submitted(batcher, model, 1)
        await model.has_begun()
        rest = await submitted(batcher, model, 2, 3, 4)
        model.open()
        await asyncio.gather(*first, *rest)
    assert model.batches == [[1], [2, 3], [4]]


async def test_an_idle_thread_leaves_a_fair_share_to_the_other_idle_threads() -> None:
    model = GatedModel()
    batcher = Batcher(threads=2, max_waiting=100, max_age_s=60)
    tasks = await submitted(batcher, model, 1, 2, 3, 4)  # before any thread runs, so that the shares are known
    batcher._idle = 1  # the thread that looks first sees one more that is idle
    batch = batcher._take_batch()
    assert batch is not None
    assert [waiting.job for waiting in batch.wanted] == [1, 2]
    for task in tasks:
        task.cancel()


async def test_models_take_turns() -> None:
    order: list[list[int]] = []
    busy, other = GatedModel(max_batch=1), GatedModel(max_batch=1)
    busy.batches = other.batches = order
    async with running() as batcher:
        tasks = await submitted(batcher, busy, 1)
        await busy.has_begun()
        tasks += await submitted(batcher, busy, 2, 3) + await submitted(batcher, other, 4)
        busy.open()
        other.open()
        await asyncio.gather(*tasks)
    assert order == [[1], [2], [4], [3]]


async def test_a_full_queue_refuses_instead_of_growing() -> None:
    model = GatedModel()
    async with running(max_waiting=1) as batcher:
        first = await submitted(batcher, model, 1)
        await model.has_begun()
        second = await submitted(batcher, model, 2)
        with pytest.raises(Overloaded) as refusal:
            await batcher.submit(model, 3)
        with pytest.raises(Overloaded):
            batcher.check_room()
        assert refusal.value.retry_after_s == 1
        model.open()
        assert await asyncio.gather(*first, *second) == [2, 4]


async def test_the_refusal_says_how_long_the_queue_will_last() -> None:
    async with running(max_waiting=1) as batcher:
        batcher._seconds_per_job = 3.5
        model = GatedModel()
        tasks = await submitted(batcher, model, 1)
        await model.has_begun()
        tasks += await submitted(batcher, model, 2)
        with pytest.raises(Overloaded) as refusal:
            batcher.check_room()
        assert refusal.value.retry_after_s == 4
        model.open()
        await asyncio.gather(*tasks)


async def test_an_image_that_waited_too_long_is_refused_before_any_work() -> None:
    model = GatedModel()
    async with running(max_age_s=0.001) as batcher:
        first = await submitted(batcher, model, 1)
        await model.has_begun()
        late = await submitted(batcher, model, 2)
        await asyncio.sleep(0.01)
        model.open()
        await asyncio.gather(*first)
        with pytest.raises(Expired) as refusal:
            await late[0]
        assert refusal.value.retry_after_s == 1
    assert model.batches == [[1]]


async def test_images_of_clients_that_left_are_skipped() -> None:
    model = GatedModel()
    async with running() as batcher:
        first = await submitted(batcher, model, 1)
        await model.has_begun()
        gone = asyncio.create_task(batcher.submit(model, 2, is_wanted=lambda: False))
        cancelled, kept = await submitted(batcher, model, 3, 4)
        cancelled.cancel()
        await asyncio.sleep(0)
        model.open()
        assert await asyncio.gather(*first, kept) == [2, 8]
        with pytest.raises(Expired) as refusal:
            await gone
        assert refusal.value.code == "client_left"
    assert model.batches == [[1], [4]]


async def test_a_client_that_hangs_up_does_not_strand_its_batch() -> None:
    model = GatedModel()
    async with running() as batcher:
        first, second = await submitted(batcher, model, 1, 2)
        await model.has_begun()
        first.cancel()
        model.open()
        assert await second == 4


async def test_one_bad_picture_fails_alone() -> None:
    model = GatedModel()
    mixed = OpenModel()
    async with running() as batcher:
        blocker = await submitted(batcher, model, 0)
        await model.has_begun()
        tasks = await submitted(batcher, mixed, 1, -2, 3)
        model.open()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*blocker)
    assert mixed.batches == [[1, -2, 3]]
    assert [answers[0], answers[2]] == [2, 6]
    assert isinstance(answers[1], BadImage)


async def test_a_failing_batch_is_tried_again_one_by_one_and_the_next_batch_still_runs() -> None:
    model = GatedModel()
    broken = OpenModel()
    async with running() as batcher:
        blocker = await submitted(batcher, model, 0)
        await model.has_begun()
        tasks = await submitted(batcher, broken, 1, 13, 3)
        model.open()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*blocker)
        assert await batcher.submit(broken, 5) == 10
    assert broken.batches == [[1, 13, 3], [1], [13], [3], [5]]
    assert [answers[0], answers[2]] == [2, 6]
    assert isinstance(answers[1], EngineFailed)


async def test_a_model_that_loses_answers_fails_instead_of_mixing_them_up() -> None:
    class Forgetful(OpenModel):
        def answer_batch(self, jobs: list[int]) -> list[int | ServiceError]:
            return []

    async with running() as batcher:
        with pytest.raises(EngineFailed):
            await batcher.submit(Forgetful(), 1)


async def test_stopping_answers_everything_that_was_accepted() -> None:
    model = GatedModel(max_batch=1)
    batcher = Batcher(threads=2, max_waiting=100, max_age_s=60)
    batcher.start()
    tasks = await submitted(batcher, model, *range(10))
    await model.has_begun()
    stopping = asyncio.create_task(batcher.stop(10))
    await asyncio.sleep(0)
    with pytest.raises(NotReady):
        await batcher.submit(model, 99)
    model.open()
    await stopping
    assert await asyncio.gather(*tasks) == [2 * job for job in range(10)]
    assert batcher.waiting == 0


async def test_a_hanging_model_does_not_keep_anybody_waiting_at_the_end() -> None:
    model = GatedModel()
    batcher = Batcher(threads=1, max_waiting=100, max_age_s=60)
    batcher.start()
    running_job = await submitted(batcher, model, 1)
    await model.has_begun()
    waiting_job = await submitted(batcher, model, 2)
    await batcher.stop(0.01)
    for task in (*running_job, *waiting_job):
        with pytest.raises(NotReady):
            await task
    model.open()
    await asyncio.wait_for(batcher._all_ended.wait(), 10)  # its late answer finds nobody, and hurts nobody


async def test_a_batcher_that_never_ran_stops_at_once() -> None:
    await Batcher(threads=1, max_waiting=1, max_age_s=1).stop(10)


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"max_waiting": 0}, {"max_age_s": 0.0}])
async def test_limits_must_be_positive(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Batcher(**{"threads": 1, "max_waiting": 1, "max_age_s": 1.0, **wrong})  # type: ignore[arg-type]


async def test_ten_thousand_jobs_on_four_threads_each_get_their_own_answer() -> None:
    async with running(threads=4, max_waiting=10_000) as batcher:
        model = OpenModel()
        model.max_batch = 32
        jobs = range(14, 10_014)
        answers = await asyncio.gather(*(batcher.submit(model, job) for job in jobs))
    assert answers == [2 * job for job in jobs]
    assert sum(map(len, model.batches)) == len(jobs)
