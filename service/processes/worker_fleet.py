"""The running workers: starting them, checking that they reply, and the two steps of a change of models in all.

Missed replies are counted in ticks, not seconds, so that a suspended machine kills no worker.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from service.model_files.repository import ModelFile, ServingSet
from service.processes.messages import ToWorker
from service.processes.worker_handle import WorkerHandle, WorkerSpec
from service.system.background_tasks import Background

# At one ping a second; an event loop that is silent for longer hangs. A start imports the framework and the engine.
_MOST_UNANSWERED_PINGS = 7
_MOST_UNANSWERED_PINGS_AT_START = 120


class WorkerFleet:
    """The workers of one server, by index."""

    def __init__(self, start: Callable[[WorkerSpec], Awaitable[WorkerHandle]], load_timeout_s: float) -> None:
        """`start` forks a worker; a worker that needs longer than `load_timeout_s` for a change of models is killed."""
        self._start = start
        self._load_timeout_s = load_timeout_s
        self._workers: dict[int, WorkerHandle] = {}
        self._start_lock = asyncio.Lock()
        self._is_closed = False
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._pings = Background(lambda: None)

    def __iter__(self) -> Iterator[WorkerHandle]:
        return iter(list(self._workers.values()))

    def __len__(self) -> int:
        return len(self._workers)

    async def start(self, spec: WorkerSpec) -> WorkerHandle | None:
        """Start a worker, one at a time; return None once the fleet is closed. Raises OSError."""
        async with self._start_lock:
            if self._is_closed:
                return None
            worker = self._workers[spec.index] = await self._start(spec)
            self._is_empty.clear()
        return worker

    async def close(self) -> None:
        """Start no more workers, and wait for one that is being started."""
        async with self._start_lock:
            self._is_closed = True

    def remove(self, worker: WorkerHandle) -> None:
        """Remove a worker that has ended."""
        del self._workers[worker.index]
        if not self._workers:
            self._is_empty.set()

    async def wait_until_empty(self) -> None:
        """Return when no worker runs."""
        await self._is_empty.wait()

    def are_loaded(self, count: int) -> bool:
        """Return whether `count` workers run, and all have loaded their models."""
        return len(self._workers) == count and all(worker.is_loaded for worker in self._workers.values())

    def has_served_for(self, least_s: float) -> bool:
        """Return whether a worker has had its models for at least so many seconds."""
        return any(worker.is_loaded and worker.served_s >= least_s for worker in self._workers.values())

    def check(self) -> None:
        """Ping every worker, and kill one that has left too many pings unanswered."""
        for worker in self._workers.values():
            most = _MOST_UNANSWERED_PINGS if worker.is_loaded else _MOST_UNANSWERED_PINGS_AT_START
            if worker.unanswered_pings >= most:
                worker.kill("its event loop hangs" if worker.is_loaded else "its start hangs")
            else:
                worker.unanswered_pings += 1
                self._pings.start(worker.ping())

    def send(self, message: ToWorker) -> None:
        """Send a message to all workers."""
        for worker in self._workers.values():
            worker.send(message)

    async def prepare(self, files: tuple[ModelFile, ...]) -> str | None:
        """Let all workers load files beside those that serve; return the first failure."""
        return await self._request_all(lambda worker: worker.prepare(files))

    async def commit(self, serving_set: ServingSet) -> str | None:
        """Let all workers serve this set; return the first failure."""
        return await self._request_all(lambda worker: worker.commit(serving_set))

    async def _request_all(self, request: Callable[[WorkerHandle], Awaitable[str | None]]) -> str | None:
        """Return the first failure. A worker that does not reply in time is killed; its replacement is up to date."""
        replies = {asyncio.ensure_future(request(worker)): worker for worker in self if worker.is_loaded}
        if not replies:
            return None
        done, late = await asyncio.wait(replies, timeout=self._load_timeout_s)
        for reply in late:
            reply.cancel()
            replies[reply].kill("it did not load a model in time")
        failures = [failure for reply in done if not reply.cancelled() and (failure := reply.result())]
        return failures[0] if failures else ("a process did not load it in time" if late else None)
