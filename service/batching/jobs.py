"""Queued jobs and how engine threads run them. Every job is resolved, whatever fails."""

import asyncio
import logging
import math
import operator
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

from service.batching.heartbeat import Heartbeat
from service.errors import EngineFailed, Expired, ServiceError, out_of_memory

log = logging.getLogger(__name__)

Job = TypeVar("Job")
Answer = TypeVar("Answer")
# Returns whether the client waits for its answer; all jobs of a request share one callable. None: unknown, because the
# client has closed its sending half. Such a client counts as disconnected while jobs of other requests are queued.
IsAwaited = Callable[[], bool | None]


@dataclass(slots=True)  # not frozen, for the reason given at QueuedJob
class SubmitOptions:
    """Properties of the request that a job belongs to."""

    is_awaited: IsAwaited = lambda: True
    expires_at: float = math.inf  # the client's deadline, in monotonic seconds


@dataclass(frozen=True, slots=True)
class Deferred(Generic[Job]):
    """A model's answer to a job that needs long preparation before it can be part of a batch."""

    prepare: Callable[[], Job]  # returns the job to run next; may raise ServiceError


class Model(Protocol[Job, Answer]):
    """A model that answers batches of jobs. The engine's threads call it."""

    @property
    def max_batch(self) -> int: ...

    @property
    def longest_batch_s(self) -> float:
        """The time of the largest batch in seconds; a batch that takes ten times as long counts as stuck."""

    @property
    def is_serialized(self) -> bool:
        """Whether a shared device, such as a GPU, computes the batches of all threads one after the other."""

    def runs_inline(self, job: Job, /) -> bool:
        """Return whether a job is short enough to run on the event loop of an idle process."""

    def answer_batch(self, jobs: list[Job], /, *, exclusive: bool) -> list[Answer | ServiceError | Deferred[Job]]:
        """Return the answer to each job, in order. `exclusive`: no process has another job."""


@dataclass(slots=True, eq=False)  # not frozen: a frozen instance takes three times as long to create
class QueuedJob:
    """A job in a queue, and the future of its answer."""

    model: Model[Any, Any]
    job: Any
    answer: asyncio.Future[Any]
    is_awaited: IsAwaited
    expires_at: float  # monotonic seconds
    queued_at: float = field(default_factory=time.monotonic)

    def refusal(self, now: float, has_others: Callable[[IsAwaited], bool]) -> ServiceError | None:
        """Return the failure of an abandoned or expired job, else None.

        `now` is in monotonic seconds. `has_others` returns whether jobs of other requests are queued.
        """
        if self.answer.done() or not self._is_awaited_beside(has_others):
            return Expired("The client disconnected before its image was processed.", code="client_left")
        if now > self.expires_at:
            return Expired("The image waited too long; try again later.", retry_after_s=1)
        return None

    def _is_awaited_beside(self, has_others: Callable[[IsAwaited], bool]) -> bool:
        is_awaited = self.is_awaited()
        return not has_others(self.is_awaited) if is_awaited is None else is_awaited


def has_other_requests(jobs: Iterable[QueuedJob], is_awaited: IsAwaited) -> bool:
    """Return whether any job belongs to a request other than the one with this `is_awaited`."""
    return any(job.is_awaited != is_awaited for job in jobs)


def pop_up_to(
    queue: deque[QueuedJob], share: int, has_others_elsewhere: Callable[[IsAwaited], bool]
) -> tuple[list[QueuedJob], list[tuple[QueuedJob, ServiceError]]]:
    """Remove up to `share` valid jobs from the queue; return them, and the refused jobs that preceded them."""
    taken: list[QueuedJob] = []
    refused: list[tuple[QueuedJob, ServiceError]] = []
    now = time.monotonic()

    def has_others(is_awaited: IsAwaited) -> bool:
        is_here = has_other_requests(taken, is_awaited) or has_other_requests(queue, is_awaited)
        return is_here or has_others_elsewhere(is_awaited)

    while queue and len(taken) < share:
        job = queue.popleft()
        refusal = job.refusal(now, has_others)
        if refusal is None:
            taken.append(job)
        else:
            refused.append((job, refusal))
    return taken, refused


_JOB = operator.attrgetter("job")


def run_batch(batch: list[QueuedJob], heartbeat: Heartbeat, *, exclusive: bool) -> list[Any]:
    """Return the model's answers to a batch, in order. If the batch fails, each job is retried in a batch of one."""
    model = batch[0].model
    heartbeat.begin(model.longest_batch_s)
    try:
        answers = model.answer_batch(list(map(_JOB, batch)), exclusive=exclusive)
        if len(answers) != len(batch):
            raise ValueError(f"{len(answers)} answers to {len(batch)} jobs")
        return answers
    except Exception as error:  # the thread has to survive any failure, and every job has to be resolved
        if len(batch) > 1:
            _note_failure(error, len(batch))
            return [answer for queued in batch for answer in run_batch([queued], heartbeat, exclusive=False)]
        return [_failure(error)]


def prepare(queued: QueuedJob, deferred: Deferred[Any], has_others: Callable[[IsAwaited], bool]) -> Any:
    """Return the prepared job, or a ServiceError if it was refused or failed."""
    refusal = queued.refusal(time.monotonic(), has_others)
    if refusal is not None:
        return refusal
    try:
        return deferred.prepare()
    except Exception as error:  # as above
        return _failure(error)


def _failure(error: Exception) -> ServiceError:
    if isinstance(error, ServiceError):
        return error.as_answer()
    if isinstance(error, MemoryError):
        return out_of_memory()
    _note_failure(error, 1)
    return EngineFailed("The model failed on this image; the server's log has the cause.")


def _note_failure(error: Exception, size: int) -> None:
    if not isinstance(error, ServiceError):
        log.error("a batch of %d failed", size, exc_info=error)


def resolve_from_thread(loop: asyncio.AbstractEventLoop, answers: Iterable[tuple[QueuedJob, Any]]) -> None:
    """Resolve jobs from another thread, with one wake-up of the event loop for all of them."""
    call_on_loop(loop, resolve, list(answers))


def call_on_loop(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: Any) -> None:
    """Schedule a callback on the event loop, from another thread."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        log.warning("the event loop has ended before an engine thread; its result is dropped")


def resolve(answers: Iterable[tuple[QueuedJob, Any]]) -> None:
    """Set the future of each job, on the event loop."""
    for queued, answer in answers:
        if queued.answer.done():
            continue  # cancelled by its task, or refused by `Batcher.stop`
        if isinstance(answer, ServiceError):
            queued.answer.set_exception(answer)
        else:
            queued.answer.set_result(answer)
