"""Batching of single images without a timer.

While the engine is busy, jobs collect in the queue. A thread that becomes free takes its share of them, up to the
model's `max_batch` and a limit on the time of a batch. An idle server answers at once with batches of one; a loaded
server fills its batches. Models take turns on the same threads. A job with long preparation is deferred to another
thread, so that it does not delay its batch. Every submitted job gets an answer.
"""

import asyncio
import logging
import math
import threading
import time
from queue import SimpleQueue
from typing import Any

from service.batching.heartbeat import Heartbeat
from service.batching.job_queue import JobQueue
from service.batching.jobs import (
    Answer,
    Deferred,
    IsAwaited,
    Job,
    Model,
    QueuedJob,
    SubmitOptions,
    call_on_loop,
    prepare,
    resolve,
    resolve_from_thread,
    run_batch,
)
from service.batching.load_shedding import LoadShedder, QueueLimits
from service.errors import NotReady, ServiceError
from service.system.priority import yield_to_event_loop
from service.system.shared_counters import SharedLoad

log = logging.getLogger(__name__)

_CLEANUP_INTERVAL_S = 0.05  # between two scans for abandoned jobs: a refusal has to be cheap
_LONGEST_PREPARATION_S = 1.5
_NO_LIMITS = SubmitOptions()


class Batcher:
    """Owns the threads that run models, and resolves the futures of requests on the event loop."""

    def __init__(
        self, limits: QueueLimits, *, threads: int = 1, shared_load: SharedLoad | None = None, worker_index: int = 0
    ) -> None:
        """Create the queue; `start` starts the threads.

        `shared_load` has the counters of all processes; this one writes those of `worker_index`. Raises ValueError if
        `threads` is not positive.
        """
        if threads < 1:
            raise ValueError(f"threads {threads} must be positive")
        self.thread_count = threads
        self._load_shedder = LoadShedder(limits)
        self._shared_load = shared_load or SharedLoad(1)
        self._queue = JobQueue(self._load_shedder, self._shared_load, worker_index)
        self._to_prepare: SimpleQueue[tuple[QueuedJob, Deferred[Any]] | None] = SimpleQueue()
        self._running_threads = 0
        self._heartbeats: list[Heartbeat] = []
        # Only the event loop accesses these.
        self._unanswered: set[asyncio.Future[Any]] = set()
        self._all_ended = asyncio.Event()
        self._cleaned_up_at = 0.0
        self._has_run_inline = False  # in this pass of the event loop
        self._inline_heartbeat = Heartbeat()  # not checked: the supervisor checks the event loop

    @property
    def waiting(self) -> int:
        """The number of jobs that no thread has taken yet."""
        return self._queue.waiting

    @property
    def running_threads(self) -> int:
        """The number of threads that run models; 0 before the start."""
        return self._running_threads

    @property
    def busy_s(self) -> float:
        """The seconds that all threads have worked, together, on work that has ended."""
        return self._queue.busy_s

    def oldest_age_s(self) -> float:
        """Return the waiting time of the oldest queued job in seconds; 0 if there is none."""
        return self._queue.oldest_age_s()

    def start(self, threads: int | None = None) -> None:
        """Start the threads; `threads` replaces the constructor's number. Call it on the event loop that submits."""
        loop = asyncio.get_running_loop()
        self.thread_count = threads or self.thread_count
        self._running_threads = self.thread_count
        for work, name in ((self._run_engine_thread, "engine"), (self._run_preparing_thread, "prepare")):
            for number in range(self.thread_count):
                heartbeat = Heartbeat()
                self._heartbeats.append(heartbeat)
                # Daemon threads: a model that hangs must not block the exit of the process.
                threading.Thread(target=work, args=(loop, heartbeat), name=f"{name}-{number}", daemon=True).start()

    async def stop(self, timeout_s: float) -> None:
        """Answer all accepted jobs and end the threads; after `timeout_s`, refuse the remaining jobs."""
        self._queue.close()
        if self._running_threads:
            try:
                await asyncio.wait_for(self._all_ended.wait(), timeout_s)
            except TimeoutError:
                log.error("the engine did not finish in %g s; abandoned requests: %d", timeout_s, self.waiting)
        for answer in self._unanswered:
            if not answer.done():
                answer.set_exception(NotReady("The server stopped before this image was processed.", retry_after_s=5))
        self._unanswered.clear()

    def is_healthy(self) -> bool:
        """Return whether all idle threads have answered the last checks and no busy thread hangs."""
        check, now = self._queue.check_threads(), time.monotonic()
        return all(heartbeat.is_healthy(check, now) for heartbeat in self._heartbeats)

    def check_capacity(self, expires_at: float = math.inf) -> None:
        """Raise what `submit` would raise for one more job now.

        `expires_at` is the client's deadline in monotonic seconds. Raises NotReady, Overloaded, Expired.
        """
        queue = self._queue
        if queue.is_closing:
            raise NotReady("The server is stopping; send requests elsewhere.", code="draining", retry_after_s=5)
        if self._load_shedder.is_full(self._shared_load.waiting()):
            self._drop_abandoned()
            if self._load_shedder.is_full(self._shared_load.waiting()):
                raise self._load_shedder.overloaded(queue.waiting, self.thread_count)
        now = time.monotonic()
        self._load_shedder.check(
            now,
            waiting=queue.waiting,
            outstanding=queue.waiting + queue.running,
            threads=self.thread_count,
            is_idle=queue.idle_threads > 0,
            seconds_left=expires_at - now,
        )

    def has_capacity(self, coming: int = 0) -> bool:
        """Return whether the queue would accept one more job after `coming` others, whatever its deadline.

        A batcher that is stopping returns True, because it does not refuse for lack of capacity.
        """
        queue = self._queue
        if queue.is_closing or not (queue.waiting or coming):
            return True
        if self._load_shedder.is_full(self._shared_load.waiting() + coming):
            self._drop_abandoned()
            if self._load_shedder.is_full(self._shared_load.waiting() + coming):
                return False
        return self._load_shedder.has_capacity(
            time.monotonic(),
            waiting=queue.waiting + coming,
            outstanding=queue.waiting + queue.running + coming,
            threads=self.thread_count,
        )

    def retry_after_s(self) -> int:
        """Return the number of seconds after which a refused client should retry."""
        return self._load_shedder.retry_after_s(self._queue.waiting, self.thread_count)

    async def submit(self, model: Model[Job, Answer], job: Job, options: SubmitOptions = _NO_LIMITS) -> Answer:
        """Return the model's answer to one job.

        A job that arrives at an idle process is always attempted. If the model `runs_inline`, the event loop runs such
        a job itself, because two handovers between threads take about as long as the job.

        Raises Overloaded if the queue is full, Expired if the job would be or was processed too late, NotReady if the
        server stops, EngineFailed if the model fails, and any ServiceError that the model returns for this job.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        queue = self._queue
        with queue.lock:
            self.check_capacity(options.expires_at)
            outstanding = queue.waiting + queue.running
            until = math.inf
            if outstanding:
                latest_start = self._load_shedder.latest_start(options.expires_at)
                until = min(latest_start, self._load_shedder.expiry(time.monotonic(), outstanding))
            queued = QueuedJob(model, job, answer, options.is_awaited, until)
            is_inline = not outstanding and self._may_run_inline(model, job, options)
            if is_inline:
                self._note_inline()
                queue.count(running=1)
            else:
                queue.put(queued)
        self._unanswered.add(answer)
        try:
            if is_inline:  # a model that hangs here blocks the event loop, which the supervisor detects
                resolve(self._run([queued], self._inline_heartbeat, exclusive=True))
            return await answer
        finally:
            self._unanswered.discard(answer)
            del answer, queued  # an exception's traceback refers to this frame: avoid a reference cycle

    def _may_run_inline(self, model: Model[Job, Any], job: Job, options: SubmitOptions) -> bool:
        """Return whether the event loop may run a job now: the job is short, and no process has another job.

        The second job in one pass of the event loop is queued. Otherwise the event loop of an overloaded process would
        run all jobs itself: nothing would ever be in the queue, and nothing would be refused.
        """
        if self._has_run_inline or not self._running_threads:
            return False
        is_idle = self._load_shedder.is_fast() and self._shared_load.is_idle()
        return is_idle and model.runs_inline(job) and bool(options.is_awaited())

    def _note_inline(self) -> None:
        self._has_run_inline = True
        asyncio.get_running_loop().call_soon(self._begin_pass)

    def _begin_pass(self) -> None:
        self._has_run_inline = False

    def delays_others(self, is_awaited: IsAwaited) -> bool:
        """Return whether jobs with this `is_awaited` are queued, and jobs of other requests as well."""
        return self._queue.has_jobs_of(is_awaited) and self._queue.has_others(is_awaited)

    def _drop_abandoned(self) -> None:
        """Remove expired jobs and the jobs of disconnected clients."""
        now = time.monotonic()
        if now - self._cleaned_up_at < _CLEANUP_INTERVAL_S:
            return
        self._cleaned_up_at = now
        resolve(self._queue.drop_refused(now))

    def _run_engine_thread(self, loop: asyncio.AbstractEventLoop, heartbeat: Heartbeat) -> None:
        yield_to_event_loop()
        while (batch := self._queue.take_batch(heartbeat, self.thread_count)) is not None:
            if batch.refused:
                resolve_from_thread(loop, batch.refused)
            if batch.jobs:
                resolve_from_thread(loop, self._run(batch.jobs, heartbeat, exclusive=batch.exclusive))
            del batch  # a waiting thread must not keep images or an unloaded model alive
        with self._queue.lock:
            self._running_threads -= 1
            is_last = self._running_threads == 0
        if is_last:
            for _ in range(self.thread_count):
                self._to_prepare.put(None)
            call_on_loop(loop, self._all_ended.set)

    def _run(self, jobs: list[QueuedJob], heartbeat: Heartbeat, *, exclusive: bool) -> list[tuple[QueuedJob, Any]]:
        """Run a batch; return each job with its answer, except for deferred jobs."""
        started = time.monotonic()
        answers = run_batch(jobs, heartbeat, exclusive=exclusive)
        seconds = time.monotonic() - started
        self._load_shedder.note_batch(seconds, len(jobs))
        answered: list[tuple[QueuedJob, Any]] = []
        deferred: list[tuple[QueuedJob, Any]] = []
        for pair in zip(jobs, answers, strict=True):
            (deferred if isinstance(pair[1], Deferred) else answered).append(pair)
        self._queue.end_batch(len(jobs), [job for job, _ in deferred] if deferred else (), seconds)
        for pair in deferred:
            self._to_prepare.put(pair)
        return answered

    def _run_preparing_thread(self, loop: asyncio.AbstractEventLoop, heartbeat: Heartbeat) -> None:
        heartbeat.beat(math.inf)  # a check does not wake this thread while it waits
        while (entry := self._to_prepare.get()) is not None:
            queued, deferred = entry
            heartbeat.begin(_LONGEST_PREPARATION_S)
            started = time.monotonic()
            job = prepare(queued, deferred, self._queue.has_others)
            seconds = time.monotonic() - started
            heartbeat.end()
            self._queue.end_deferral(queued, job, seconds)
            if isinstance(job, ServiceError):
                resolve_from_thread(loop, [(queued, job)])
            del entry, queued, deferred, job  # as above: a waiting thread must not keep them alive
