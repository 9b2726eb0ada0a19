"""Workers without a process: they record what they receive and reply as their test sets them up."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import Any

from service.model_files.repository import ModelFile, ServingSet
from service.processes.messages import Message, ToWorker
from service.processes.worker_fleet import WorkerFleet
from service.processes.worker_handle import WorkerSpec
from service.telemetry.prometheus import Snapshot, merge


class FakeWorker:
    """What the supervisor uses of a `WorkerHandle`."""

    def __init__(self, index: int = 0, *, failure: str | None = None, is_silent: bool = False) -> None:
        self.index = index
        self.pid = 1000 + index
        self.is_loaded = True
        self.served_s = 60.0
        self.unanswered_pings = 0
        self.healthy_s = 0.0
        self.failure: str | None = None
        self.killed_because: str | None = None
        self.was_killed = asyncio.Event()
        self.statistics: Snapshot = merge(())
        self.max_batches: dict[str, int] = {}
        self.files: tuple[ModelFile, ...] = ()
        self.received: list[Any] = []
        self._has_received: dict[ToWorker, asyncio.Event] = defaultdict(asyncio.Event)
        self._sent: asyncio.Queue[Message] = asyncio.Queue()
        self._failure = failure
        self._is_silent = is_silent

    async def ping(self) -> None:
        await self._reply("ping")

    async def prepare(self, files: tuple[ModelFile, ...]) -> str | None:
        return await self._reply("prepare", self._failure)

    async def commit(self, serving_set: ServingSet) -> str | None:
        self.files = serving_set.files
        return await self._reply("commit")

    async def _reply(self, request: str, failure: str | None = None) -> str | None:
        self.received.append(request)
        if self._is_silent:
            await asyncio.Event().wait()
        return failure

    def send(self, message: ToWorker) -> None:
        self.received.append(message)
        self._has_received[message].set()

    async def has_received(self, message: ToWorker) -> None:
        """Return once a message has arrived by `send`."""
        await self._has_received[message].wait()

    def kill(self, reason: str) -> None:
        self.killed_because = self.killed_because or reason
        self.was_killed.set()

    def sends(self, message: Message) -> None:
        """Let the supervisor receive a message."""
        self._sent.put_nowait(message)

    async def messages(self) -> AsyncIterator[Message]:
        while True:
            yield await self._sent.get()

    async def drain_messages(self) -> None:
        return None


def spec(index: int = 0) -> WorkerSpec:
    return WorkerSpec(index, None, 0.0, ServingSet("a", ()))


async def fleet_of(*workers: FakeWorker, load_timeout_s: float = 10.0) -> WorkerFleet:
    """Return a fleet in which these workers run."""
    waiting = iter(workers)

    async def start(_: WorkerSpec) -> Any:
        return next(waiting)

    fleet = WorkerFleet(start, load_timeout_s)
    for worker in workers:
        await fleet.start(spec(worker.index))
    return fleet
