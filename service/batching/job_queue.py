"""The jobs of one process: a queue for each model, and the counters that other processes read.

Models are served round-robin: a model whose batch was taken goes to the end. One lock guards all state of this module
and the decisions of `Batcher.submit`.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

from service.batching.heartbeat import Heartbeat
from service.batching.jobs import IsAwaited, Model, QueuedJob, has_other_requests, pop_up_to
from service.batching.load_shedding import LoadShedder
from service.errors import ServiceError
from service.system.shared_counters import SharedLoad

Refused = tuple[QueuedJob, ServiceError]


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs of one model that a thread has taken, and the refused jobs that preceded them in the queue."""

    jobs: list[QueuedJob]
    refused: list[Refused]
    exclusive: bool  # no process has another job


class JobQueue:
    """Queues of jobs by model. Methods acquire the lock themselves, except where noted."""

    def __init__(self, load_shedder: LoadShedder, shared_load: SharedLoad, worker_index: int) -> None:
        self.lock = threading.RLock()
        self.waiting = 0  # jobs in a queue or deferred
        self.running = 0  # jobs in a model
        self.idle_threads = 0
        self.busy_s = 0.0  # of all threads together: decoding and running, batches and deferred jobs that have ended
        self.is_closing = False
        self._load_shedder = load_shedder
        self._shared_load, self._worker_index = shared_load, worker_index
        self._changed = threading.Condition(self.lock)
        self._queues: dict[Model[Any, Any], deque[QueuedJob]] = {}  # in round-robin order; no queue is empty
        self._deferred: set[QueuedJob] = set()
        self._checks = 0  # liveness checks of idle threads so far

    def put(self, job: QueuedJob) -> None:
        """Append a job to the queue of its model, and wake a thread. The caller holds the lock."""
        self._queues.setdefault(job.model, deque()).append(job)
        self.count(waiting=1)
        self._changed.notify()

    def count(self, *, waiting: int = 0, running: int = 0) -> None:
        """Add to the counters, and publish them to the other processes. The caller holds the lock."""
        self.waiting += waiting
        self.running += running
        self._shared_load.write(self._worker_index, waiting=self.waiting, outstanding=self.waiting + self.running)

    def oldest_age_s(self) -> float:
        """Return the longest waiting time of a queue's first job in seconds; 0 if all queues are empty."""
        with self.lock:
            firsts = [queue[0].queued_at for queue in self._queues.values()]
        return time.monotonic() - min(firsts) if firsts else 0.0

    def close(self) -> None:
        """Let `take_batch` return None once no job is left."""
        with self.lock:
            self.is_closing = True
            self._changed.notify_all()

    def check_threads(self) -> int:
        """Wake all idle threads, and return the number of this check, which their heartbeats store."""
        with self.lock:
            self._checks += 1
            self._changed.notify_all()
            return self._checks

    def take_batch(self, heartbeat: Heartbeat, threads: int) -> Batch | None:
        """Wait for jobs, then take a fair share of one model's jobs; return None once the queue is closed and empty.

        Jobs of a fast model or a GPU are divided among the threads that are idle now. Jobs of a slow model are divided
        among all threads, because each of them becomes free before a batch ends. Abandoned and expired jobs are refused
        and do not count towards the share.
        """
        with self.lock:
            self.idle_threads += 1
            heartbeat.end()
            heartbeat.beat(self._checks)
            while not self._queues and not (self.is_closing and not self._deferred):
                self._changed.wait()
                heartbeat.beat(self._checks)
            self.idle_threads -= 1
            if not self._queues:
                return None
            model = next(iter(self._queues))
            queue = self._queues.pop(model)
            before = len(queue)
            jobs, refused = pop_up_to(queue, self._share(model, before, threads), self.has_others)
            self.count(waiting=len(queue) - before, running=len(jobs))
            if queue:
                self._queues[model] = queue  # appended, so that the other models are next
            return Batch(jobs, refused, exclusive=self._shared_load.has_single_request())

    def _share(self, model: Model[Any, Any], waiting: int, threads: int) -> int:
        """Return the number of a model's waiting jobs that one thread takes."""
        if model.is_serialized or self._load_shedder.is_fast():
            return min(math.ceil(waiting / (self.idle_threads + 1)), model.max_batch)
        return min(math.ceil(waiting / threads), model.max_batch, self._load_shedder.largest_batch())

    def end_batch(self, jobs: int, deferred: Sequence[QueuedJob], seconds: float) -> None:
        """Count `jobs` jobs as run in so many seconds, except for those that the model has deferred."""
        with self.lock:
            self.busy_s += seconds
            self._deferred.update(deferred)
            self.count(waiting=len(deferred), running=-jobs)

    def end_deferral(self, job: QueuedJob, prepared: Any, seconds: float) -> None:
        """Put a prepared job at the front of its queue, or drop it if `prepared` is a ServiceError.

        Its preparation took so many `seconds`, which do not count as waiting.
        """
        with self.lock:
            self.busy_s += seconds
            self._deferred.discard(job)
            if isinstance(prepared, ServiceError):
                self.count(waiting=-1)
            else:
                ready = replace(job, job=prepared, queued_at=job.queued_at + seconds)
                self._queues.setdefault(job.model, deque()).appendleft(ready)
            self._changed.notify_all()

    def drop_refused(self, now: float) -> list[Refused]:
        """Remove expired jobs and the jobs of disconnected clients; return them with their refusals."""
        dropped: list[Refused] = []
        with self.lock:
            has_others = partial(has_other_requests, self._all_waiting())
            for model, queue in list(self._queues.items()):
                refused = [(job, why) for job in queue if (why := job.refusal(now, has_others)) is not None]
                removed = {job for job, _ in refused}
                self._queues[model] = deque(job for job in queue if job not in removed)
                if not self._queues[model]:
                    del self._queues[model]
                dropped += refused
            self.count(waiting=-len(dropped))
        return dropped

    def has_jobs_of(self, is_awaited: IsAwaited) -> bool:
        """Return whether jobs of the request with this `is_awaited` are queued."""
        return any(job.is_awaited == is_awaited for job in self._all_waiting())

    def has_others(self, is_awaited: IsAwaited) -> bool:
        """Return whether jobs of other requests are queued, in this process or another one."""
        return self._shared_load.waiting() > self.waiting or has_other_requests(self._all_waiting(), is_awaited)

    def _all_waiting(self) -> list[QueuedJob]:
        with self.lock:
            return [*chain.from_iterable(self._queues.values()), *self._deferred]
