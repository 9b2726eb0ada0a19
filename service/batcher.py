"""Group single pictures into batches, without making anyone wait for a timer.

While the engine is busy, arrivals collect; the moment a thread is free it takes its share of them, up to the model's
`max_batch`. A quiet server answers at once with batches of one; a busy server fills its batches by itself. Models
take turns on the same threads. The only promise to keep: every submitted job gets an answer.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from service.errors import EngineFailed, Expired, NotReady, Overloaded, ServiceError

log = logging.getLogger(__name__)

Job = TypeVar("Job")
Answer = TypeVar("Answer")

_LONGEST_RETRY_AFTER_S = 30
_RECENT = 0.1  # weight of the newest batch in the running mean of seconds a job


class Model(Protocol[Job, Answer]):
    """What answers batches: jobs of one model share a batch. Called from the engine's threads."""

    @property
    def max_batch(self) -> int: ...

    def answer_batch(self, jobs: list[Job], /) -> list[Answer | ServiceError]: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    job: Any
    answer: asyncio.Future[Any]
    is_wanted: Callable[[], bool]  # false once the client has gone
    expires_at: float  # monotonic seconds


@dataclass(frozen=True, slots=True)
class _Batch:
    model: Model[Any, Any]
    wanted: list[_Waiting]
    refused: list[tuple[_Waiting, ServiceError]]


class Batcher:
    """Owns the queue between the event loop and the engine's threads."""

    def __init__(self, *, threads: int, max_waiting: int, max_age_s: float) -> None:
        if threads < 1 or max_waiting < 1 or max_age_s <= 0:
            raise ValueError(f"threads {threads}, max_waiting {max_waiting} and max_age_s {max_age_s} must be positive")
        self.thread_count = threads
        self.max_waiting = max_waiting
        self._max_age_s = max_age_s
        self._changed = threading.Condition()
        self._queues: dict[Model[Any, Any], deque[_Waiting]] = {}  # in the order of their turns; never an empty queue
        self._waiting = 0
        self._idle = 0
        self._running_threads = 0
        self._is_closing = False
        self._seconds_per_job = 0.0
        # These belong to the event loop.
        self._unanswered: set[asyncio.Future[Any]] = set()
        self._all_ended = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many jobs no thread has taken yet."""
        return self._waiting

    def start(self) -> None:
        """Start the threads. Call it on the event loop that will submit."""
        loop = asyncio.get_running_loop()
        self._running_threads = self.thread_count
        for number in range(self.thread_count):
            # Daemons: a model that hangs may not keep the process from ending.
            threading.Thread(target=self._run_engine_thread, args=(loop,), name=f"engine-{number}", daemon=True).start()

    async def stop(self, timeout_s: float) -> None:
        """Answer everything that was accepted, then end the threads; after `timeout_s`, refuse what is left."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._running_threads:
            try:
                await asyncio.wait_for(self._all_ended.wait(), timeout_s)
            except TimeoutError:
                log.error("the engine did not finish in %g s; %d requests are given up", timeout_s, self._waiting)
        for answer in self._unanswered:
            if not answer.done():
                answer.set_exception(NotReady("The server stopped before this image had its turn.", retry_after_s=5))
        self._unanswered.clear()

    def check_room(self) -> None:
        """Raise Overloaded if one more job would be refused, NotReady if the server is stopping."""
        if self._is_closing:
            raise NotReady("The server is stopping; send requests elsewhere.", code="draining", retry_after_s=5)
        if self._waiting >= self.max_waiting:
            raise Overloaded(
                "Too many images are waiting already; try again a little later.", retry_after_s=self._retry_after_s()
            )

    async def submit(
        self, model: Model[Job, Answer], job: Job, *, is_wanted: Callable[[], bool] = lambda: True
    ) -> Answer:
        """Return the model's answer to one job.

        Raises Overloaded if too much is waiting, Expired if its turn came too late, NotReady if the server stops,
        EngineFailed if the model broke, and whatever ServiceError the model has for this job alone.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(job, answer, is_wanted, time.monotonic() + self._max_age_s)
        with self._changed:
            self.check_room()
            self._queues.setdefault(model, deque()).append(waiting)
            self._waiting += 1
            self._changed.notify()
        self._unanswered.add(answer)
        try:
            return await answer
        finally:
            self._unanswered.discard(answer)

    def _retry_after_s(self) -> int:
        until_empty = self._waiting * self._seconds_per_job / self.thread_count
        return max(1, min(math.ceil(until_empty), _LONGEST_RETRY_AFTER_S))

    def _run_engine_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        while (batch := self._take_batch()) is not None:
            if batch.refused:
                _deliver(loop, batch.refused)
            if batch.wanted:
                started = time.monotonic()
                answers = _answer_all(batch.model, [waiting.job for waiting in batch.wanted])
                _deliver(loop, zip(batch.wanted, answers, strict=True))
                self._note_speed((time.monotonic() - started) / len(batch.wanted))
        with self._changed:
            self._running_threads -= 1
            is_last = self._running_threads == 0
        if is_last:
            _call(loop, self._all_ended.set)

    def _take_batch(self) -> _Batch | None:
        """Wait for work, then take a fair share of one model's: `ceil(waiting / (idle threads + 1))`.

        What nobody wants any more is skipped, what has expired is refused, and neither counts. None at the end.
        """
        with self._changed:
            self._idle += 1
            self._changed.wait_for(lambda: self._queues or self._is_closing)
            self._idle -= 1
            if not self._queues:
                return None
            model = next(iter(self._queues))
            queue = self._queues.pop(model)
            before = len(queue)
            batch = _share_of(model, queue, math.ceil(before / (self._idle + 1)))
            self._waiting -= before - len(queue)
            if queue:
                self._queues[model] = queue  # at the end: the other models are next
            return batch

    def _note_speed(self, seconds_per_job: float) -> None:
        with self._changed:
            self._seconds_per_job += _RECENT * (seconds_per_job - self._seconds_per_job)


def _share_of(model: Model[Any, Any], queue: deque[_Waiting], share: int) -> _Batch:
    batch = _Batch(model, [], [])
    now = time.monotonic()
    while queue and len(batch.wanted) < min(share, model.max_batch):
        waiting = queue.popleft()
        if waiting.answer.done() or not waiting.is_wanted():
            batch.refused.append((waiting, Expired("The client left before its turn.", code="client_left")))
        elif now > waiting.expires_at:
            batch.refused.append((waiting, Expired("The image waited too long; try again later.", retry_after_s=1)))
        else:
            batch.wanted.append(waiting)
    return batch


def _answer_all(model: Model[Job, Answer], jobs: list[Job]) -> list[Answer | ServiceError]:
    """Answer a batch; if it fails as a whole, each job gets another chance alone."""
    try:
        answers = model.answer_batch(jobs)
        if len(answers) != len(jobs):
            raise ValueError(f"{len(answers)} answers to {len(jobs)} jobs")
        return answers
    except Exception as error:  # whatever breaks, the thread has to live and everybody has to hear
        if not isinstance(error, ServiceError):
            log.exception("a batch of %d failed", len(jobs))
        if len(jobs) > 1:
            return [answer for job in jobs for answer in _answer_all(model, [job])]
        failed = error if isinstance(error, ServiceError) else None
        return [failed or EngineFailed("The model failed on this image; the server's log has the cause.")]


def _deliver(loop: asyncio.AbstractEventLoop, answers: Iterable[tuple[_Waiting, Any]]) -> None:
    _call(loop, _settle, list(answers))  # one wake-up of the loop a batch


def _call(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: Any) -> None:
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        log.warning("an engine thread outlived the event loop; nobody is left to hear its answer")


def _settle(answers: list[tuple[_Waiting, Any]]) -> None:
    for waiting, answer in answers:
        if waiting.answer.done():
            continue  # cancelled by its own task, or refused at the end
        if isinstance(answer, ServiceError):
            waiting.answer.set_exception(answer)
        else:
            waiting.answer.set_result(answer)
