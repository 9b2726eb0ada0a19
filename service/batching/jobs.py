"""One image's stay in the queue, and the work that threads do on it: everybody gets an answer, whatever breaks."""

import asyncio
import logging
import math
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
# Whether the client waits for its answer, the same for all jobs of a request. None: nobody knows, as it sends no more;
# then it counts as one that has left while others wait.
IsWanted = Callable[[], bool | None]


@dataclass(slots=True)  # not frozen, for the reason given at QueuedJob
class SubmitOptions:
    """What the queue knows of the request that a job belongs to."""

    is_wanted: IsWanted = lambda: True
    expires_at: float = math.inf  # the client's own limit, in monotonic seconds


@dataclass(frozen=True, slots=True)
class Deferred(Generic[Job]):
    """A model's word for a job that needs long work before it can share a batch."""

    prepare: Callable[[], Job]  # returns the job to ask about then; may raise ServiceError


class Model(Protocol[Job, Answer]):
    """What answers batches: jobs of one model share a batch. Called from the engine's threads."""

    @property
    def max_batch(self) -> int: ...

    @property
    def longest_batch_s(self) -> float:
        """How long the largest batch takes; where one takes ten times that, something hangs."""

    @property
    def takes_turns(self) -> bool:
        """Whether its batches are computed one after the other, whatever the threads: by a GPU."""

    def runs_inline(self, job: Job, /) -> bool:
        """Whether a job is short enough for the event loop to run it, while there is nothing else to do."""

    def answer_batch(self, jobs: list[Job], /, *, is_alone: bool) -> list[Answer | ServiceError | Deferred[Job]]:
        """Answer each job. `is_alone`: all processes together have nothing else to do."""


@dataclass(slots=True, eq=False)  # not frozen: one is made for each image, and that would triple what it costs
class QueuedJob:
    """A job and whoever waits for its answer."""

    model: Model[Any, Any]
    job: Any
    answer: asyncio.Future[Any]
    is_wanted: IsWanted
    expires_at: float  # monotonic seconds
    since: float = field(default_factory=time.monotonic)

    def refusal(self, now: float, others_wait: Callable[[IsWanted], bool]) -> ServiceError | None:
        """Return why no work should be done on this any more, if there is a reason."""
        if self.answer.done() or not self._is_wanted_beside(others_wait):
            return Expired("The client left before its turn.", code="client_left")
        if now > self.expires_at:
            return Expired("The image waited too long; try again later.", retry_after_s=1)
        return None

    def _is_wanted_beside(self, others_wait: Callable[[IsWanted], bool]) -> bool:
        is_wanted = self.is_wanted()
        return not others_wait(self.is_wanted) if is_wanted is None else is_wanted


def are_others(waiting: Iterable[QueuedJob], is_wanted: IsWanted) -> bool:
    """Return whether any of the jobs belongs to another request than the one with this `is_wanted`."""
    return any(each.is_wanted != is_wanted for each in waiting)


def pop_up_to(
    queue: deque[QueuedJob], share: int, others_wait_elsewhere: Callable[[IsWanted], bool]
) -> tuple[list[QueuedJob], list[tuple[QueuedJob, ServiceError]]]:
    """Take up to `share` jobs from the queue, and what has to be refused on the way, which does not count."""
    wanted: list[QueuedJob] = []
    refused: list[tuple[QueuedJob, ServiceError]] = []
    now = time.monotonic()

    def others_wait(is_wanted: IsWanted) -> bool:
        return are_others(wanted, is_wanted) or are_others(queue, is_wanted) or others_wait_elsewhere(is_wanted)

    while queue and len(wanted) < share:
        waiting = queue.popleft()
        refusal = waiting.refusal(now, others_wait)
        if refusal is None:
            wanted.append(waiting)
        else:
            refused.append((waiting, refusal))
    return wanted, refused


def run_batch(batch: list[QueuedJob], pulse: Heartbeat, *, is_alone: bool) -> list[Any]:
    """Return the model's answers to a batch; if it fails as a whole, each job gets another chance alone."""
    model = batch[0].model
    pulse.begin(model.longest_batch_s)
    try:
        answers = model.answer_batch([waiting.job for waiting in batch], is_alone=is_alone)
        if len(answers) != len(batch):
            raise ValueError(f"{len(answers)} answers to {len(batch)} jobs")
        return answers
    except Exception as error:  # whatever breaks, the thread has to live and everybody has to hear
        if len(batch) > 1:
            _note_failure(error, len(batch))
            return [answer for waiting in batch for answer in run_batch([waiting], pulse, is_alone=False)]
        return [_failure(error)]


def prepare(waiting: QueuedJob, set_aside: Deferred[Any], others_wait: Callable[[IsWanted], bool]) -> Any:
    """Return the prepared job, or the ServiceError why there is none."""
    refusal = waiting.refusal(time.monotonic(), others_wait)
    if refusal is not None:
        return refusal
    try:
        return set_aside.prepare()
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
    """Hand answers to those who wait for them, from another thread: one wake-up of the loop a batch."""
    call(loop, settle, list(answers))


def call(loop: asyncio.AbstractEventLoop, callback: Callable[..., None], *arguments: Any) -> None:
    """Call something on the event loop, from another thread."""
    try:
        loop.call_soon_threadsafe(callback, *arguments)
    except RuntimeError:
        log.warning("an engine thread outlived the event loop; nobody is left to hear its answer")


def settle(answers: Iterable[tuple[QueuedJob, Any]]) -> None:
    """As `resolve_from_thread`, on the event loop itself."""
    for waiting, answer in answers:
        if waiting.answer.done():
            continue  # cancelled by its own task, or refused at the end
        if isinstance(answer, ServiceError):
            waiting.answer.set_exception(answer)
        else:
            waiting.answer.set_result(answer)
