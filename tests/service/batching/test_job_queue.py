"""The queues of one process: turns of the models, shares of the threads, and counts, without any thread or loop."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from service.batching.heartbeat import Heartbeat
from service.batching.job_queue import Batch, JobQueue
from service.batching.jobs import IsAwaited, QueuedJob
from service.batching.load_shedding import LoadShedder, QueueLimits
from service.errors import BadImage, Expired
from service.system.shared_counters import SharedLoad


class Model:
    """Has limits; it is never run."""

    longest_batch_s = 0.0

    def __init__(self, max_batch: int = 8, *, is_serialized: bool = False) -> None:
        self.max_batch, self.is_serialized = max_batch, is_serialized


def wanted() -> bool:
    return True


def abandoned() -> bool:
    return False


@pytest.fixture
def shared_load() -> SharedLoad:
    return SharedLoad(2)


@pytest.fixture
def shedder() -> LoadShedder:
    return LoadShedder(QueueLimits(100, 60.0))


@pytest.fixture
def queue(shedder: LoadShedder, shared_load: SharedLoad) -> JobQueue:
    return JobQueue(shedder, shared_load, 1)


Put = Callable[..., list[QueuedJob]]


@pytest.fixture
def put(queue: JobQueue) -> Iterator[Put]:
    loop = asyncio.new_event_loop()

    def put(
        model: Model, *jobs: int, is_awaited: IsAwaited = wanted, expires_at: float = float("inf")
    ) -> list[QueuedJob]:
        queued = [QueuedJob(model, job, loop.create_future(), is_awaited, expires_at) for job in jobs]  # type: ignore[arg-type]
        with queue.lock:
            for each in queued:
                queue.put(each)
        return queued

    yield put
    loop.close()


def taken(queue: JobQueue, threads: int = 1) -> Batch:
    batch = queue.take_batch(Heartbeat(), threads)
    assert batch is not None
    return batch


def numbers(batch: Batch) -> list[int]:
    return [queued.job for queued in batch.jobs]


def test_models_take_turns(queue: JobQueue, put: Put) -> None:
    first, second = Model(max_batch=2), Model()
    put(first, 1, 2, 3)
    put(second, 4)
    assert [numbers(taken(queue)) for _ in range(3)] == [[1, 2], [4], [3]]


def test_a_thread_leaves_idle_threads_their_share(queue: JobQueue, put: Put) -> None:
    put(Model(), 1, 2, 3, 4)
    queue.idle_threads = 1
    assert numbers(taken(queue, threads=2)) == [1, 2]


@pytest.mark.parametrize(("is_serialized", "expected"), [(False, 1), (True, 4)])
def test_slow_images_are_taken_one_by_one_unless_batches_are_serialized(
    queue: JobQueue, shedder: LoadShedder, put: Put, is_serialized: bool, expected: int
) -> None:
    shedder.note_batch(10.0, 1)
    put(Model(is_serialized=is_serialized), 1, 2, 3, 4)
    assert len(taken(queue, threads=2).jobs) == expected


def test_counts_reach_the_other_processes(queue: JobQueue, shared_load: SharedLoad, put: Put) -> None:
    put(Model(), 1, 2)
    assert (queue.waiting, queue.running) == (2, 0)
    assert (shared_load.waiting(), shared_load.outstanding()) == (2, 2)
    taken(queue)
    assert (queue.waiting, queue.running) == (0, 2)
    assert (shared_load.waiting(), shared_load.outstanding()) == (0, 2)
    queue.end_batch(2, (), 0.5)
    assert (queue.waiting, queue.running, shared_load.outstanding()) == (0, 0, 0)


def test_a_batch_is_exclusive_while_no_process_has_another_job(
    queue: JobQueue, shared_load: SharedLoad, put: Put
) -> None:
    put(Model(), 1)
    assert taken(queue).exclusive
    queue.end_batch(1, (), 0.5)
    shared_load.write(0, waiting=0, outstanding=1)
    put(Model(), 2)
    assert not taken(queue).exclusive


def test_abandoned_and_expired_jobs_are_refused_beyond_the_share(queue: JobQueue, put: Put) -> None:
    model = Model(max_batch=1)
    put(model, 1, is_awaited=abandoned)
    put(model, 2, expires_at=time.monotonic() - 1)
    put(model, 3)
    batch = taken(queue)
    assert numbers(batch) == [3]
    assert [(queued.job, failure.code) for queued, failure in batch.refused] == [(1, "client_left"), (2, "expired")]
    assert (queue.waiting, queue.running) == (0, 1)


def test_a_deferred_job_waits_until_it_returns_to_the_front(queue: JobQueue, put: Put) -> None:
    model = Model(max_batch=1)
    put(model, 1, 2)
    (deferred,) = taken(queue).jobs
    queue.end_batch(1, [deferred], 0.5)
    assert (queue.waiting, queue.running) == (2, 0)
    queue.end_deferral(deferred, 10, 5.0)
    batch = taken(queue)
    assert (numbers(batch), batch.jobs[0].queued_at) == ([10], deferred.queued_at + 5.0)
    assert queue.waiting == 1


def test_a_deferred_job_that_fails_leaves_the_queue(queue: JobQueue, put: Put) -> None:
    put(Model(), 1)
    (deferred,) = taken(queue).jobs
    queue.end_batch(1, [deferred], 0.5)
    queue.end_deferral(deferred, BadImage("broken"), 0.0)
    assert (queue.waiting, queue.running, queue.oldest_age_s()) == (0, 0, 0.0)


def test_the_seconds_of_batches_and_of_preparations_add_up(queue: JobQueue, put: Put) -> None:
    put(Model(), 1)
    (deferred,) = taken(queue).jobs
    queue.end_batch(1, [deferred], 0.25)
    queue.end_deferral(deferred, 10, 2.0)
    taken(queue)
    assert queue.busy_s == 2.25
    queue.end_batch(1, (), 0.5)
    assert queue.busy_s == 2.75


def test_dropping_refused_jobs_keeps_all_others(queue: JobQueue, put: Put) -> None:
    model, other = Model(), Model()
    put(model, 1, is_awaited=abandoned)
    put(model, 2)
    put(other, 3, is_awaited=abandoned)
    dropped = queue.drop_refused(time.monotonic())
    assert [(queued.job, type(failure)) for queued, failure in dropped] == [(1, Expired), (3, Expired)]
    assert queue.waiting == 1
    assert numbers(taken(queue)) == [2]


def test_jobs_of_other_requests_count_and_those_of_other_processes_too(
    queue: JobQueue, shared_load: SharedLoad, put: Put
) -> None:
    put(Model(), 1)
    assert queue.has_jobs_of(wanted)
    assert not queue.has_jobs_of(abandoned)
    assert not queue.has_others(wanted)
    assert queue.has_others(abandoned)
    shared_load.write(0, waiting=1, outstanding=1)
    assert queue.has_others(wanted)


def test_the_age_is_that_of_the_oldest_first_job(queue: JobQueue, put: Put) -> None:
    assert queue.oldest_age_s() == 0.0
    (queued,) = put(Model(), 1)
    put(Model(), 2)
    queued.queued_at -= 7.0
    assert 7.0 <= queue.oldest_age_s() < 60.0


def test_a_closed_queue_ends_once_deferred_jobs_have_returned(queue: JobQueue, put: Put) -> None:
    put(Model(), 1)
    (deferred,) = taken(queue).jobs
    queue.end_batch(1, [deferred], 0.5)
    queue.close()
    results: list[Batch | None] = []
    thread = threading.Thread(target=lambda: results.append(queue.take_batch(Heartbeat(), 1)), daemon=True)
    thread.start()
    queue.end_deferral(deferred, 5, 0.0)
    thread.join(30)
    assert [batch is not None and numbers(batch) for batch in results] == [[5]]
    assert queue.take_batch(Heartbeat(), 1) is None


def test_a_check_of_the_threads_reaches_the_idle_ones(queue: JobQueue) -> None:
    heartbeat = Heartbeat()
    thread = threading.Thread(target=queue.take_batch, args=(heartbeat, 1), daemon=True)
    thread.start()
    for _ in range(20):
        check = queue.check_threads()
    queue.close()
    thread.join(30)
    assert check == 20
    assert heartbeat.is_healthy(check, time.monotonic())
