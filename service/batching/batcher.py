"""Group single images into batches, without making anyone wait for a timer.

While the engine is busy, arrivals collect; the moment a thread is free it takes its share of them, up to the model's
`max_batch` and to what is quickly done. A quiet server answers at once with batches of one; a busy server fills its
batches by itself. Models take turns on the same threads. A job that needs long work first is set aside for a thread of
its own, so that it does not hold up its batch. The only promise to keep: every submitted job gets an answer.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from queue import SimpleQueue
from typing import Any

from service.batching.heartbeat import Heartbeat
from service.batching.jobs import (
    Answer,
    Deferred,
    IsWanted,
    Job,
    Model,
    QueuedJob,
    are_others,
    call,
    pop_up_to,
    prepare,
    resolve_from_thread,
    run_batch,
    settle,
)
from service.batching.load_shedding import LoadShedder, QueueLimits
from service.errors import NotReady, ServiceError
from service.system.shared_counters import SharedLoad

log = logging.getLogger(__name__)

_LOOK_FOR_THE_GONE_S = 0.05  # not at every refusal: those have to be cheap
_LONGEST_PREPARATION_S = 1.5


@dataclass(frozen=True, slots=True)
class _Batch:
    wanted: list[QueuedJob]
    refused: list[tuple[QueuedJob, ServiceError]]
    is_alone: bool


class Batcher:
    """Owns the queue between the event loop and the engine's threads."""

    def __init__(
        self, limits: QueueLimits, *, threads: int = 1, board: SharedLoad | None = None, place: int = 0
    ) -> None:
        if threads < 1:
            raise ValueError(f"threads {threads} must be positive")
        self.thread_count = threads
        self._room = LoadShedder(limits)
        self._board, self._place = board or SharedLoad(1), place
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._queues: dict[Model[Any, Any], deque[QueuedJob]] = {}  # in the order of their turns; never an empty queue
        self._to_prepare: SimpleQueue[tuple[QueuedJob, Deferred[Any]] | None] = SimpleQueue()
        self._waiting = 0  # in a queue or set aside
        self._set_aside: set[QueuedJob] = set()
        self._running = self._idle = self._running_threads = 0
        self._is_closing = False
        self._calls = 0
        self._pulses: list[Heartbeat] = []
        # These belong to the event loop.
        self._unanswered: set[asyncio.Future[Any]] = set()
        self._all_ended = asyncio.Event()
        self._looked_for_the_gone_at = 0.0

    @property
    def waiting(self) -> int:
        """How many jobs no thread has taken yet."""
        return self._waiting

    def oldest_age_s(self) -> float:
        """Return how long the job that has waited longest in the queue has done so, 0 if there is none."""
        with self._lock:
            firsts = [queue[0].since for queue in self._queues.values()]
        return time.monotonic() - min(firsts) if firsts else 0.0

    def start(self, threads: int | None = None) -> None:
        """Start the threads, `threads` of them if given. Call it on the event loop that will submit."""
        loop = asyncio.get_running_loop()
        self.thread_count = threads or self.thread_count
        self._running_threads = self.thread_count
        for work, name in ((self._run_engine_thread, "engine"), (self._run_preparing_thread, "prepare")):
            for number in range(self.thread_count):
                pulse = Heartbeat()
                self._pulses.append(pulse)
                # Daemons: a model that hangs may not keep the process from ending.
                threading.Thread(target=work, args=(loop, pulse), name=f"{name}-{number}", daemon=True).start()

    async def stop(self, timeout_s: float) -> None:
        """Answer everything that was accepted, then end the threads; after `timeout_s`, refuse what is left."""
        with self._lock:
            self._is_closing = True
            self._changed.notify_all()
        if self._running_threads:
            try:
                await asyncio.wait_for(self._all_ended.wait(), timeout_s)
            except TimeoutError:
                log.error("the engine did not finish in %g s; requests that are given up: %d", timeout_s, self._waiting)
        for answer in self._unanswered:
            if not answer.done():
                answer.set_exception(NotReady("The server stopped before this image had its turn.", retry_after_s=5))
        self._unanswered.clear()

    def is_healthy(self) -> bool:
        """Call all threads, and return whether each has answered the last calls or is busy for a sensible time."""
        with self._lock:
            self._calls += 1
            self._changed.notify_all()
        now = time.monotonic()
        return all(pulse.is_healthy(self._calls, now) for pulse in self._pulses)

    def check_capacity(self, expires_at: float = math.inf) -> None:
        """Raise what `submit` would raise for one more job now; `expires_at` is its client's limit."""
        if self._is_closing:
            raise NotReady("The server is stopping; send requests elsewhere.", code="draining", retry_after_s=5)
        if self._room.is_full(self._board.waiting()):
            self._drop_the_gone()
            if self._room.is_full(self._board.waiting()):
                raise self._room.overloaded(self._waiting, self.thread_count)
        now = time.monotonic()
        self._room.check(
            now,
            waiting=self._waiting,
            outstanding=self._waiting + self._running,
            threads=self.thread_count,
            is_idle=self._idle > 0,
            seconds_left=expires_at - now,
        )

    async def submit(
        self,
        model: Model[Job, Answer],
        job: Job,
        *,
        is_wanted: IsWanted = lambda: True,
        expires_at: float = math.inf,
        is_quick: bool = False,
    ) -> Answer:
        """Return the model's answer to one job, which is given up when the monotonic clock passes `expires_at`.

        One that finds nothing before it is always tried: it waits for no other. If it `is_quick`, too, and surely
        wanted, it is done here and now: two handovers between threads would take about as long as the job.

        Raises Overloaded if too much is waiting, Expired if its turn would come or came too late, NotReady if the
        server stops, EngineFailed if the model broke, and whatever ServiceError the model has for this job alone.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        with self._lock:
            self.check_capacity(expires_at)
            outstanding = self._waiting + self._running
            until = math.inf
            if outstanding:
                until = min(self._room.latest_start(expires_at), self._room.expiry(time.monotonic(), outstanding))
            waiting = QueuedJob(model, job, answer, is_wanted, until)
            is_done_here = is_quick and not outstanding and self._has_nothing_else() and bool(is_wanted())
            if is_done_here:
                self._count(running=1)
            else:
                self._queues.setdefault(model, deque()).append(waiting)
                self._count(waiting=1)
                self._changed.notify()
        self._unanswered.add(answer)
        try:
            if is_done_here:  # a model that hangs here stops the event loop, which the supervisor notices as well
                settle(self._answered([waiting], Heartbeat(), is_alone=True))
            return await answer
        finally:
            self._unanswered.discard(answer)
            del answer, waiting  # a failure's traceback holds this frame, and would be held by it

    def is_in_the_way(self, is_wanted: IsWanted) -> bool:
        """Return whether jobs that were submitted with this `is_wanted` wait, and others too."""
        return any(each.is_wanted == is_wanted for each in self._all_waiting()) and self._others_wait(is_wanted)

    def _others_wait(self, is_wanted: IsWanted) -> bool:
        return self._board.waiting() > self._waiting or are_others(self._all_waiting(), is_wanted)

    def _all_waiting(self) -> list[QueuedJob]:
        with self._lock:
            return [*chain.from_iterable(self._queues.values()), *self._set_aside]

    def _has_nothing_else(self) -> bool:
        """Whether the event loop can be spared for a moment."""
        return self._running_threads > 0 and self._room.is_quick() and self._board.is_idle()

    def _count(self, *, waiting: int = 0, running: int = 0) -> None:
        """Call it with the lock."""
        self._waiting += waiting
        self._running += running
        self._board.write(self._place, waiting=self._waiting, outstanding=self._waiting + self._running)

    def _drop_the_gone(self) -> None:
        """Make room: clients that left wait no more."""
        now = time.monotonic()
        if now - self._looked_for_the_gone_at < _LOOK_FOR_THE_GONE_S:
            return
        self._looked_for_the_gone_at = now
        dropped: list[tuple[QueuedJob, Any]] = []
        with self._lock:
            others_wait = partial(are_others, self._all_waiting())
            for model, queue in list(self._queues.items()):
                refused = [(each, why) for each in queue if (why := each.refusal(now, others_wait)) is not None]
                gone = {waiting for waiting, _ in refused}
                self._queues[model] = deque(waiting for waiting in queue if waiting not in gone)
                if not self._queues[model]:
                    del self._queues[model]
                dropped += refused
            self._count(waiting=-len(dropped))
        settle(dropped)

    def _run_engine_thread(self, loop: asyncio.AbstractEventLoop, pulse: Heartbeat) -> None:
        while (batch := self._take_batch(pulse)) is not None:
            if batch.refused:
                resolve_from_thread(loop, batch.refused)
            if batch.wanted:
                resolve_from_thread(loop, self._answered(batch.wanted, pulse, is_alone=batch.is_alone))
            del batch  # while it waits, the thread holds no image and no model that may be on its way out
        with self._lock:
            self._running_threads -= 1
            is_last = self._running_threads == 0
        if is_last:
            for _ in range(self.thread_count):
                self._to_prepare.put(None)
            call(loop, self._all_ended.set)

    def _take_batch(self, pulse: Heartbeat) -> _Batch | None:
        """Wait for work, then take a fair share of one model's.

        Quick images, and those of a GPU, are shared with the threads that are idle now; while slow ones are computed
        every thread comes by, so each leaves the others their share. What nobody wants any more is skipped, what has
        expired is refused, and neither counts. None at the end.
        """
        with self._lock:
            self._idle += 1
            pulse.end()
            pulse.hear(self._calls)
            while not self._queues and not (self._is_closing and not self._set_aside):
                self._changed.wait()
                pulse.hear(self._calls)
            self._idle -= 1
            if not self._queues:
                return None
            model = next(iter(self._queues))
            queue = self._queues.pop(model)
            before = len(queue)
            wanted, refused = pop_up_to(queue, self._share(model, before), self._others_wait)
            self._count(waiting=len(queue) - before, running=len(wanted))
            if queue:
                self._queues[model] = queue  # at the end: the other models are next
            return _Batch(wanted, refused, is_alone=self._board.has_single_request())

    def _share(self, model: Model[Any, Any], waiting: int) -> int:
        """Return how many of a model's jobs that wait one thread takes."""
        if model.takes_turns or self._room.is_quick():
            return min(math.ceil(waiting / (self._idle + 1)), model.max_batch)
        return min(math.ceil(waiting / self.thread_count), model.max_batch, self._room.largest_batch())

    def _answered(self, batch: list[QueuedJob], pulse: Heartbeat, *, is_alone: bool) -> list[tuple[QueuedJob, Any]]:
        """Have the model answer a batch; return each job with its answer, but for those that are set aside."""
        started = time.monotonic()
        answers = run_batch(batch, pulse, is_alone=is_alone)
        self._room.note_batch(time.monotonic() - started, len(batch))
        answered = [pair for pair in zip(batch, answers, strict=True) if not isinstance(pair[1], Deferred)]
        set_aside = [pair for pair in zip(batch, answers, strict=True) if isinstance(pair[1], Deferred)]
        with self._lock:
            self._set_aside.update(waiting for waiting, _ in set_aside)
            self._count(waiting=len(set_aside), running=-len(batch))
        for pair in set_aside:
            self._to_prepare.put(pair)
        return answered

    def _run_preparing_thread(self, loop: asyncio.AbstractEventLoop, pulse: Heartbeat) -> None:
        pulse.hear(math.inf)  # where it waits, nobody can call it
        while (entry := self._to_prepare.get()) is not None:
            waiting, set_aside = entry
            pulse.begin(_LONGEST_PREPARATION_S)
            started = time.monotonic()
            job = prepare(waiting, set_aside, self._others_wait)
            since = waiting.since + time.monotonic() - started  # it was worked on, and did not wait
            pulse.end()
            is_refused = isinstance(job, ServiceError)
            with self._lock:
                self._set_aside.discard(waiting)
                if is_refused:
                    self._count(waiting=-1)
                else:
                    self._queues.setdefault(waiting.model, deque()).appendleft(replace(waiting, job=job, since=since))
                self._changed.notify_all()
            if is_refused:
                resolve_from_thread(loop, [(waiting, job)])
            del entry, waiting, set_aside, job  # as above: while it waits, the thread holds no image and no model
