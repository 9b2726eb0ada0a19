"""Queued jobs, and how threads run them: every job is resolved, whatever fails."""

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
from service.errors import EngineFailed, Expired, ServiceError

log = logging.getLogger(__name__)

Job = TypeVar("Job")
Answer = TypeVar("Answer")
# Whether the client waits for its answer; the same callable for all jobs of a request. None: unknown, because the
# client has closed its sending half. It then counts as one that has left while jobs of other requests wait.
IsWanted = Callable[[], bool | None]


@dataclass(slots=True)  # not frozen, for the reason given at QueuedJob
class SubmitOptions:
    """What the queue knows of the request that a job belongs to."""

    is_wanted: IsWanted = lambda: True
    expires_at: float = math.inf  # the client's own limit, in monotonic seconds


@dataclass(frozen=True, slots=True)
class Deferred(Generic[Job]):
    """A model's answer to a job that needs long work before it can share a batch."""

    prepare: Callable[[], Job]  # returns the job to run then; may raise ServiceError


class Model(Protocol[Job, Answer]):
    """What answers batches: jobs of one model share a batch. Called by the engine's threads."""

    @property
    def max_batch(self) -> int: ...

    @property
    def longest_batch_s(self) -> float:
        """How long the largest batch takes, in seconds; a batch that takes ten times as long counts as hanging."""

    @property
    def is_serialized(self) -> bool:
        """Whether its batches are computed one after the other by all threads together, as on a GPU."""

    def runs_inline(self, job: Job, /) -> bool:
        """Whether a job is short enough for the event loop to run it, while there is nothing else to do."""

    def answer_batch(self, jobs: list[Job], /, *, exclusive: bool) -> list[Answer | ServiceError | Deferred[Job]]:
        """Answer each job, in order. `exclusive`: no process has anything else to do."""


@dataclass(slots=True, eq=False)  # not frozen: one is made for each image, and that would triple what it costs
class QueuedJob:
    """A job in a queue, and the future of its answer."""

    model: Model[Any, Any]
    job: Any
    answer: asyncio.Future[Any]
    is_wanted: IsWanted
    expires_at: float  # monotonic seconds
    queued_at: float = field(default_factory=time.monotonic)

    def refusal(self, now: float, has_others: Callable[[IsWanted], bool]) -> ServiceError | None:
        """Return the failure of a job that was abandoned or has expired, else None.

        `has_others` returns whether jobs of other requests wait.
        """
        if self.answer.done() or not self._is_wanted_beside(has_others):
            return Expired("The client left before its turn.", code="client_left")
        if now > self.expires_at:
            return Expired("The image waited too long; try again later.", retry_after_s=1)
        return None

    def _is_wanted_beside(self, has_others: Callable[[IsWanted], bool]) -> bool:
        is_wanted = self.is_wanted()
        return not has_others(self.is_wanted) if is_wanted is None else is_wanted


def has_other_requests(jobs: Iterable[QueuedJob], is_wanted: IsWanted) -> bool:
    """Return whether any of the jobs belongs to another request than the one with this `is_wanted`."""
    return any(job.is_wanted != is_wanted for job in jobs)


def pop_up_to(
    queue: deque[QueuedJob], share: int, has_others_elsewhere: Callable[[IsWanted], bool]
) -> tuple[list[QueuedJob], list[tuple[QueuedJob, ServiceError]]]:
    """Take up to `share` jobs from the queue; return them and the refused jobs before them, which do not count."""
    wanted: list[QueuedJob] = []
    refused: list[tuple[QueuedJob, ServiceError]] = []
    now = time.monotonic()

    def has_others(is_wanted: IsWanted) -> bool:
        is_among = has_other_requests(wanted, is_wanted) or has_other_requests(queue, is_wanted)
        return is_among or has_others_elsewhere(is_wanted)

    while queue and len(wanted) < share:
        job = queue.popleft()
        refusal = job.refusal(now, has_others)
        if refusal is None:
            wanted.append(job)
        else:
            refused.append((job, refusal))
    return wanted, refused


_JOB = operator.attrgetter("job")


def run_batch(batch: list[QueuedJob], heartbeat: Heartbeat, *, exclusive: bool) -> list[Any]:
    """Return the model's answers to a batch; if it fails as a whole, each job is retried by itself."""
    model = batch[0].model
    heartbeat.begin(model.longest_batch_s)
    try:
        answers = model.answer_batch(list(map(_JOB, batch)), exclusive=exclusive)
        if len(answers) != len(batch):
            raise ValueError(f"{len(answers)} answers to {len(batch)} jobs")
        return answers
    except Exception as error:  # whatever fails, the thread has to live and every job has to be resolved
        if len(batch) > 1:
            _note_failure(error, len(batch))
            return [answer for queued in batch for answer in run_batch([queued], heartbeat, exclusive=False)]
        return [_failure(error)]


def prepare(queued: QueuedJob, deferred: Deferred[Any], has_others: Callable[[IsWanted], bool]) -> Any:
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
    _note_failure(error, 1)
    return EngineFailed("The model failed on this image; the server's log has the cause.")


def _note_failure(error: Exception, size: int) -> None:
    if not isinstance(error, ServiceError):
        log.error("a batch of %d failed", size, exc_info=error)


def resolve_from_thread(loop: asyncio.AbstractEventLoop, answers: Iterable[tuple[QueuedJob, Any]]) -> None:
    """Resolve jobs from another thread: the event loop is woken once a batch."""
    call(loop, resolve, list(answers))


def call(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: Any) -> None:
    """Schedule a callback on the event loop, from another thread."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        log.warning("an engine thread outlived the event loop; its answer is dropped")


def resolve(answers: Iterable[tuple[QueuedJob, Any]]) -> None:
    """Set the future of each job, on the event loop."""
    for queued, answer in answers:
        if queued.answer.done():
            continue  # cancelled by its own task, or refused at the end
        if isinstance(answer, ServiceError):
            queued.answer.set_exception(answer)
        else:
            queued.answer.set_result(answer)
