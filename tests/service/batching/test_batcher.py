"""The queue between the event loop and the engine: fair batches, and an answer for everyone."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.batching import heartbeat
from service.batching.batcher import Batcher
from service.batching.jobs import Deferred, SubmitOptions
from service.batching.load_shedding import QueueLimits
from service.errors import BadImage, EngineFailed, Expired, NotReady, Overloaded, ServiceError
from service.system.shared_counters import SharedLoad
from tests.support.servers.served import wait_until

pytestmark = pytest.mark.anyio


class GatedModel:
    """Answers a number with its double, one batch each time the gate is opened, and notes the batches."""

    longest_batch_s = 0.0
    is_serialized = False

    def __init__(self, max_batch: int = 8) -> None:
        self.max_batch = max_batch
        self.exclusive: list[bool] = []
        self.batches: list[list[int]] = []
        self.gate = threading.Semaphore(0)
        self._begun = threading.Semaphore(0)

    def runs_inline(self, job: int) -> bool:
        return False

    def answer_batch(self, jobs: list[int], *, exclusive: bool) -> list[int | ServiceError]:
        self.batches.append(jobs)
        self.exclusive.append(exclusive)
        self._begun.release()
        self.gate.acquire()
        return [2 * job for job in jobs]

    async def has_begun(self) -> None:
        """Wait until one more batch is in the model."""
        await asyncio.to_thread(self._begun.acquire)

    def open(self) -> None:
        self.gate.release(1000)


class OpenModel:
    """Answers at once: 13 breaks the whole batch, a negative number is a bad image."""

    max_batch = 8
    longest_batch_s = 0.0
    is_serialized = False

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.is_fast = False

    def runs_inline(self, job: int) -> bool:
        return self.is_fast

    def answer_batch(self, jobs: list[int], *, exclusive: bool) -> list[int | ServiceError]:
        self.batches.append(jobs)
        if 13 in jobs:
            raise RuntimeError("thirteen")
        return [2 * job if job >= 0 else BadImage("negative") for job in jobs]


@contextlib.asynccontextmanager
async def running(
    *,
    threads: int = 1,
    max_waiting: int = 100,
    max_age_s: float = 60.0,
    never_refused: int = 0,
    shared_load: SharedLoad | None = None,
) -> AsyncIterator[Batcher]:
    limits = QueueLimits(max_waiting, max_age_s, never_refused=never_refused)
    batcher = Batcher(limits, threads=threads, shared_load=shared_load)
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
    batcher = Batcher(QueueLimits(100, 60), threads=2)
    tasks = await submitted(batcher, model, 1, 2, 3, 4)  # before any thread runs, so that the shares are known
    batcher._queue.idle_threads = 1  # the thread that looks first sees one more that is idle
    batch = batcher._queue.take_batch(heartbeat.Heartbeat(), batcher.thread_count)
    assert batch is not None
    assert [waiting.job for waiting in batch.jobs] == [1, 2]
    for task in tasks:
        task.cancel()


@pytest.mark.parametrize(("seconds", "taken"), [(0.004, 4), (0.02, 2), (0.06, 1)])
async def test_a_thread_takes_few_slow_images_and_leaves_a_busy_thread_its_share(seconds: float, taken: int) -> None:
    batcher = Batcher(QueueLimits(100, 60), threads=2)
    batcher._load_shedder.note_batch(10 * seconds, 1)  # the first of them counts for a tenth
    tasks = await submitted(batcher, GatedModel(), 1, 2, 3, 4)
    batch = batcher._queue.take_batch(heartbeat.Heartbeat(), batcher.thread_count)
    assert batch is not None
    assert len(batch.jobs) == taken  # quick ones: all, as no other thread is idle
    for task in tasks:
        task.cancel()


async def test_a_gpu_gets_all_that_waits_however_slow_its_turns_seem() -> None:
    batcher = Batcher(QueueLimits(100, 60), threads=16)
    batcher._load_shedder.note_batch(10.0, 1)
    model = GatedModel()
    model.is_serialized = True
    tasks = await submitted(batcher, model, 1, 2, 3, 4)
    batch = batcher._queue.take_batch(heartbeat.Heartbeat(), batcher.thread_count)
    assert batch is not None
    assert len(batch.jobs) == 4
    for task in tasks:
        task.cancel()


async def test_the_age_of_the_queue_is_that_of_its_oldest_image() -> None:
    model = GatedModel()
    async with running() as batcher:
        assert batcher.oldest_age_s() == 0
        tasks = await submitted(batcher, model, 1)
        await model.has_begun()
        assert batcher.oldest_age_s() == 0  # it does not wait any more
        before = time.monotonic()
        tasks += await submitted(batcher, model, 2, 3)
        await asyncio.sleep(0.01)
        assert 0 < batcher.oldest_age_s() <= time.monotonic() - before
        model.open()
        await asyncio.gather(*tasks)


async def test_an_image_that_finds_nothing_before_it_is_tried_however_little_time_it_has() -> None:
    async with running() as batcher:
        assert await batcher.submit(OpenModel(), 4, SubmitOptions(expires_at=time.monotonic() - 1)) == 8


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
            batcher.check_capacity()
        assert refusal.value.retry_after_s in (1, 2, 3)
        model.open()
        assert await asyncio.gather(*first, *second) == [2, 4]


async def test_the_refusal_says_how_long_the_queue_will_last_but_not_the_same_to_all() -> None:
    async with running(max_waiting=1) as batcher:
        batcher._load_shedder._seconds_per_image = 3.5
        model = GatedModel()
        tasks = await submitted(batcher, model, 1)
        await model.has_begun()
        tasks += await submitted(batcher, model, 2)
        told = set()
        for _ in range(50):
            with pytest.raises(Overloaded) as refusal:
                batcher.check_capacity()
            told.add(refusal.value.retry_after_s)
        assert told == {4, 5, 6}
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
        gone = asyncio.create_task(batcher.submit(model, 2, SubmitOptions(lambda: False)))
        cancelled, kept = await submitted(batcher, model, 3, 4)
        cancelled.cancel()
        await asyncio.sleep(0)
        model.open()
        assert await asyncio.gather(*first, kept) == [2, 8]
        with pytest.raises(Expired) as refusal:
            await gone
        assert refusal.value.code == "client_left"
    assert model.batches == [[1], [4]]


def unknown() -> None:
    """The client sends no more: it may have left."""


def unknown_too() -> None:
    """As `unknown`, but it is another client."""


async def test_of_clients_that_send_no_more_the_one_that_alone_waits_is_answered() -> None:
    model = GatedModel()
    async with running() as batcher:
        first = await submitted(batcher, model, 1)
        await model.has_begun()
        ended = asyncio.create_task(batcher.submit(model, 2, SubmitOptions(unknown)))
        await asyncio.sleep(0)
        model.open()
        assert await asyncio.gather(*first, ended) == [2, 4]


@pytest.mark.parametrize("is_before", [True, False])
async def test_while_others_wait_a_client_that_sends_no_more_counts_as_one_that_left(is_before: bool) -> None:
    model = GatedModel()
    async with running() as batcher:
        first = await submitted(batcher, model, 1)
        await model.has_begun()
        others = [] if is_before else await submitted(batcher, model, 3)
        ended = asyncio.create_task(batcher.submit(model, 2, SubmitOptions(unknown)))
        await asyncio.sleep(0)
        others += await submitted(batcher, model, 3) if is_before else []
        model.open()
        assert await asyncio.gather(*first, *others) == [2, 6]
        with pytest.raises(Expired) as refusal:
            await ended
        assert refusal.value.code == "client_left"
    assert model.batches == [[1], [3]]


async def test_those_who_wait_for_other_models_are_others_too() -> None:
    model, other = GatedModel(), GatedModel()
    async with running() as batcher:
        first = await submitted(batcher, model, 1)
        await model.has_begun()
        ended = asyncio.create_task(batcher.submit(model, 2, SubmitOptions(unknown)))
        await asyncio.sleep(0)
        waiting = await submitted(batcher, other, 3)
        model.open()
        other.open()
        assert await asyncio.gather(*first, *waiting) == [2, 6]
        with pytest.raises(Expired):
            await ended


async def test_the_images_of_one_request_are_no_others_for_each_other() -> None:
    model = GatedModel()
    async with running() as batcher:
        first = await submitted(batcher, model, 1)
        await model.has_begun()
        ended = [asyncio.create_task(batcher.submit(model, job, SubmitOptions(unknown))) for job in (2, 3, 4)]
        await asyncio.sleep(0)
        model.open()
        assert await asyncio.gather(*first, *ended) == [2, 4, 6, 8]


async def test_of_two_clients_that_send_no_more_one_is_answered() -> None:
    model = GatedModel()
    async with running() as batcher:
        first = await submitted(batcher, model, 1)
        await model.has_begun()
        ended = [asyncio.create_task(batcher.submit(model, 2, SubmitOptions(each))) for each in (unknown, unknown_too)]
        await asyncio.sleep(0)
        model.open()
        assert await asyncio.gather(*first) == [2]
        results = await asyncio.gather(*ended, return_exceptions=True)
    assert [isinstance(result, Expired) for result in results] == [True, False]


async def test_a_request_is_in_the_way_while_its_images_wait_and_others_too() -> None:
    model, shared_load = GatedModel(), SharedLoad(2)
    async with running(shared_load=shared_load) as batcher:
        first = await submitted(batcher, model, 1)
        await model.has_begun()
        ended = [asyncio.create_task(batcher.submit(model, job, SubmitOptions(unknown))) for job in (2, 3)]
        await asyncio.sleep(0)
        assert not batcher.delays_others(unknown)
        shared_load.write(1, waiting=1, outstanding=1)
        assert batcher.delays_others(unknown)
        shared_load.clear(1)
        other = await submitted(batcher, model, 4)
        assert batcher.delays_others(unknown)
        assert not batcher.delays_others(unknown_too)
        model.open()
        assert await asyncio.gather(*first, *other) == [2, 8]
        assert all(isinstance(each, Expired) for each in await asyncio.gather(*ended, return_exceptions=True))


async def test_a_client_that_hangs_up_does_not_strand_its_batch() -> None:
    model = GatedModel()
    async with running() as batcher:
        first, second = await submitted(batcher, model, 1, 2)
        await model.has_begun()
        first.cancel()
        model.open()
        assert await second == 4


async def test_one_bad_image_does_not_fail_its_batch() -> None:
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
        def answer_batch(self, jobs: list[int], *, exclusive: bool) -> list[int | ServiceError]:
            return []

    async with running() as batcher:
        with pytest.raises(EngineFailed):
            await batcher.submit(Forgetful(), 1)


async def test_a_model_without_memory_is_no_failure_of_the_image() -> None:
    class Starved(OpenModel):
        def answer_batch(self, jobs: list[int], *, exclusive: bool) -> list[int | ServiceError]:
            raise MemoryError

    async with running() as batcher:
        with pytest.raises(Overloaded, match="no memory"):
            await batcher.submit(Starved(), 1)


async def test_stopping_answers_everything_that_was_accepted() -> None:
    model = GatedModel(max_batch=1)
    batcher = Batcher(QueueLimits(100, 60), threads=2)
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
    batcher = Batcher(QueueLimits(100, 60), threads=1)
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
    await Batcher(QueueLimits(1, 1), threads=1).stop(10)


async def test_limits_must_be_positive() -> None:
    for wrong in ((0, 1.0), (1, 0.0)):
        with pytest.raises(ValueError, match="must be positive"):
            QueueLimits(*wrong)
    with pytest.raises(ValueError, match="must be positive"):
        Batcher(QueueLimits(1, 1), threads=0)


async def test_ten_thousand_jobs_on_four_threads_each_get_their_own_answer() -> None:
    async with running(threads=4, max_waiting=10_000) as batcher:
        model = OpenModel()
        model.max_batch = 32
        jobs = range(14, 10_014)
        answers = await asyncio.gather(*(batcher.submit(model, job) for job in jobs))
    assert answers == [2 * job for job in jobs]
    assert sum(map(len, model.batches)) == len(jobs)


class SortingModel(OpenModel):
    """Sets large numbers aside, and makes them small."""

    def __init__(self) -> None:
        super().__init__()
        self.may_prepare, self.is_preparing = threading.Event(), threading.Event()

    def answer_batch(self, jobs: list[int], *, exclusive: bool) -> list[int | ServiceError | Deferred[int]]:  # type: ignore[override]
        self.batches.append(jobs)
        return [Deferred(lambda job=job: self._smaller(job)) if job > 1000 else 2 * job for job in jobs]  # type: ignore[misc]

    def _smaller(self, job: int) -> int:
        self.is_preparing.set()
        self.may_prepare.wait()
        if job == 1013:
            raise BadImage("thirteen")
        if job == 1014:
            raise RuntimeError("fourteen")
        return job - 1000


async def test_a_big_image_does_not_hold_up_the_small_ones() -> None:
    model = SortingModel()
    async with running() as batcher:
        big, small = await submitted(batcher, model, 1001, 2)
        assert await small == 4
        assert await batcher.submit(model, 3) == 6
        assert (batcher.waiting, big.done()) == (1, False)
        model.may_prepare.set()
        assert await big == 2
    assert model.batches[-1] == [1]


async def test_the_time_of_preparing_is_no_time_in_the_queue() -> None:
    sorting, gated, prepared_s = SortingModel(), GatedModel(), 0.2
    async with running() as batcher:
        before = time.monotonic()
        tasks = await submitted(batcher, sorting, 1001)
        await asyncio.to_thread(sorting.is_preparing.wait)
        tasks += await submitted(batcher, gated, 1)
        await gated.has_begun()  # the only thread is taken, so what was prepared has to wait again
        await asyncio.sleep(prepared_s)
        sorting.may_prepare.set()
        await asyncio.to_thread(wait_until, lambda: batcher.oldest_age_s() > 0)
        assert batcher.oldest_age_s() <= time.monotonic() - before - prepared_s
        gated.open()
        await asyncio.gather(*tasks)


async def test_an_image_that_fails_on_its_way_does_not_fail_others() -> None:
    model = SortingModel()
    model.may_prepare.set()
    async with running() as batcher:
        tasks = await submitted(batcher, model, 1013, 1014, 1005)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [BadImage, EngineFailed, int]


async def test_stopping_waits_for_what_was_set_aside() -> None:
    model = SortingModel()
    batcher = Batcher(QueueLimits(100, 60), threads=2)
    batcher.start()
    tasks = await submitted(batcher, model, *range(1020, 1030))
    stopping = asyncio.create_task(batcher.stop(10))
    await asyncio.sleep(0)
    model.may_prepare.set()
    await stopping
    assert await asyncio.gather(*tasks) == [2 * job for job in range(20, 30)]


async def test_an_image_is_alone_only_if_no_process_has_another_nor_had_just_now() -> None:
    shared_load, model = SharedLoad(2), GatedModel()
    model.open()
    async with running(shared_load=shared_load) as batcher:
        await batcher.submit(model, 1)
        shared_load.write(1, waiting=0, outstanding=1)
        await batcher.submit(model, 2)
        shared_load.write(1, waiting=0, outstanding=0)
        await batcher.submit(model, 3)
        await asyncio.to_thread(wait_until, lambda: not shared_load.was_recently_busy())
        await batcher.submit(model, 4)
    assert model.exclusive == [True, False, False, True]
    assert shared_load.outstanding() == 0


async def test_what_waits_in_other_processes_counts_too() -> None:
    shared_load, model = SharedLoad(2), OpenModel()
    async with running(max_waiting=5, shared_load=shared_load) as batcher:
        shared_load.write(1, waiting=5, outstanding=5)
        with pytest.raises(Overloaded):
            batcher.check_capacity()
        shared_load.write(1, waiting=4, outstanding=5)
        assert await batcher.submit(model, 1) == 2


async def test_a_full_queue_drops_clients_that_left() -> None:
    model, has_left = GatedModel(), threading.Event()
    async with running(max_waiting=2) as batcher:
        tasks = await submitted(batcher, model, 1)
        await model.has_begun()
        gone = asyncio.create_task(batcher.submit(model, 2, SubmitOptions(lambda: not has_left.is_set())))
        tasks += await submitted(batcher, model, 3)
        has_left.set()
        tasks += await submitted(batcher, model, 4)
        model.open()
        assert await asyncio.gather(*tasks) == [2, 6, 8]
        with pytest.raises(Expired):
            await gone
    assert model.batches == [[1], [3, 4]]


class WhereModel(OpenModel):
    """Notes on which threads it runs, and whether alone."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[str] = []
        self.exclusive: list[bool] = []
        self.is_fast = True

    def answer_batch(self, jobs: list[int], *, exclusive: bool) -> list[int | ServiceError]:
        self.threads.append(threading.current_thread().name)
        self.exclusive.append(exclusive)
        return super().answer_batch(jobs, exclusive=exclusive)


async def test_a_quick_job_that_finds_nothing_before_it_is_done_by_the_event_loop_on_all_cores() -> None:
    model = WhereModel()
    async with running() as batcher:
        assert await batcher.submit(model, 4) == 8
        await asyncio.sleep(0)  # a request that is sent after the response comes in a later pass of the event loop
        with pytest.raises(BadImage):
            await batcher.submit(model, -1)
        model.is_fast = False
        assert await batcher.submit(model, 5) == 10
    here = threading.current_thread().name
    assert model.threads == [here, here, "engine-0"]
    assert model.exclusive == [True, True, True]
    assert batcher.waiting == 0


async def test_a_quick_job_waits_its_turn_behind_others() -> None:
    slow, quick = GatedModel(), WhereModel()
    async with running() as batcher:
        tasks = await submitted(batcher, slow, 1)
        await slow.has_begun()
        task = asyncio.create_task(batcher.submit(quick, 2))
        await asyncio.sleep(0)
        assert quick.threads == []
        slow.open()
        await asyncio.gather(task, *tasks)
    assert quick.threads == ["engine-0"]


@pytest.mark.parametrize(
    "reason", ["another process has work", "several were there a moment ago", "the last were slow"]
)
async def test_the_event_loop_does_a_quick_job_only_if_it_can_be_spared(reason: str) -> None:
    model, shared_load = WhereModel(), SharedLoad(2)
    if reason == "another process has work":
        shared_load.write(1, waiting=0, outstanding=1)
    if reason == "several were there a moment ago":
        shared_load.write(1, waiting=1, outstanding=2)
        shared_load.write(1, waiting=0, outstanding=0)
    async with running(shared_load=shared_load) as batcher:
        if reason == "the last were slow":
            batcher._load_shedder._seconds_per_image = 0.01
        assert await batcher.submit(model, 4) == 8
    assert model.threads == ["engine-0"]


async def test_of_several_quick_jobs_that_are_there_at_once_the_event_loop_does_one() -> None:
    model = WhereModel()
    async with running() as batcher:
        assert await asyncio.gather(*(batcher.submit(model, number) for number in (1, 2, 3))) == [2, 4, 6]
        loops, engines = model.threads[:1], model.threads[1:]
        assert await batcher.submit(model, 5) == 10
    assert loops == ["MainThread"]
    assert set(engines) == {"engine-0"}


async def test_the_event_loop_does_each_quick_job_that_comes_by_itself() -> None:
    model = WhereModel()
    async with running() as batcher:
        for number in (1, 2, 3):
            await batcher.submit(model, number)
            await asyncio.sleep(0)
    assert model.threads == ["MainThread"] * 3


async def test_a_quick_job_that_turns_out_to_be_long_is_set_aside_like_any_other() -> None:
    class Long(OpenModel):
        def runs_inline(self, job: int) -> bool:
            return job == 1

        def answer_batch(self, jobs: list[int], *, exclusive: bool) -> list[Any]:
            return [Deferred(lambda: 7) if job == 1 else 2 * job for job in jobs]

    async with running() as batcher:
        assert await batcher.submit(Long(), 1) == 14


async def test_a_queue_that_is_too_long_for_its_age_limit_refuses_at_once() -> None:
    model = GatedModel()
    async with running(max_age_s=11) as batcher:
        batcher._load_shedder.note_batch(30.0, 1)  # counts for a tenth: 3 s
        tasks = await submitted(batcher, model, 1)
        await model.has_begun()
        tasks += await submitted(batcher, model, 2, 3)
        with pytest.raises(Overloaded) as refusal:
            batcher.check_capacity()
        assert refusal.value.retry_after_s in (6, 7, 8)
        model.open()
        await asyncio.gather(*tasks)


async def test_the_first_images_wait_as_long_as_it_takes() -> None:
    model = GatedModel()
    async with running(max_age_s=0.001, never_refused=3) as batcher:
        batcher._load_shedder._seconds_per_image = 3.0
        tasks = await submitted(batcher, model, 1)
        await model.has_begun()
        tasks += await submitted(batcher, model, 2, 3)
        with pytest.raises(Overloaded):
            batcher.check_capacity()
        await asyncio.sleep(0.01)
        model.open()
        assert await asyncio.gather(*tasks) == [2, 4, 6]


async def test_what_cannot_make_its_clients_deadline_is_refused_at_once() -> None:
    model, loop = GatedModel(), asyncio.get_running_loop()
    async with running() as batcher:
        batcher._load_shedder._seconds_per_image = 3.0
        batcher.check_capacity(loop.time() + 1)  # nothing to do: it tries
        tasks = await submitted(batcher, model, 1)
        await model.has_begun()
        batcher.check_capacity(loop.time() + 100)
        with pytest.raises(Expired) as refusal:
            await batcher.submit(model, 2, SubmitOptions(expires_at=loop.time() + 1))
        assert (refusal.value.code, refusal.value.status) == ("cannot_make_it", 503)
        model.open()
        await asyncio.gather(*tasks)


async def test_a_clients_own_deadline_holds_in_the_queue() -> None:
    model, loop = GatedModel(), asyncio.get_running_loop()
    async with running(never_refused=64) as batcher:
        tasks = await submitted(batcher, model, 1)
        await model.has_begun()
        late = asyncio.create_task(batcher.submit(model, 2, SubmitOptions(expires_at=loop.time() + 0.001)))
        await asyncio.sleep(0.01)
        model.open()
        await asyncio.gather(*tasks)
        with pytest.raises(Expired):
            await late
    assert model.batches == [[1]]


async def test_idle_threads_answer_when_they_are_called() -> None:
    async with running(threads=2) as batcher:
        engine_threads = batcher._heartbeats[:2]
        for _ in range(20):
            assert batcher.is_healthy()
            await asyncio.to_thread(
                wait_until, lambda: all(each._last_check >= batcher._queue._checks for each in engine_threads)
            )


async def test_a_model_that_hangs_is_noticed_and_one_that_is_slow_by_nature_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "_SHORTEST_LIMIT_S", 0.01)
    model = GatedModel()
    async with running() as batcher:
        for expected_s, is_healthy in ((0.0, False), (60.0, True)):
            model.longest_batch_s = expected_s
            tasks = await submitted(batcher, model, 1)
            await model.has_begun()
            await asyncio.sleep(0.05)
            assert batcher.is_healthy() is is_healthy
            model.gate.release()
            await asyncio.gather(*tasks)
