"""A worker as the supervisor sees it: a forked process, the channel to it, and its last known state."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial

from service.inference.layout import WorkerLayout
from service.model_files.repository import ModelFile, ServingSet
from service.processes.channel import MessageChannel, PendingReplies
from service.processes.forking import fork
from service.processes.messages import (
    Commit,
    Health,
    Loaded,
    Message,
    Ping,
    Prepare,
    Reply,
    StartFailure,
    ToWorker,
)
from service.telemetry.prometheus import Snapshot, merge

_LAST_MESSAGES_S = 1.0


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """The parameters of a worker's start."""

    index: int  # among the workers, from 0
    layout: WorkerLayout | None  # None: the worker measures the default model and chooses
    listens_after_s: float  # at the latest; a worker listens once its models are loaded
    serving_set: ServingSet


WorkerMain = Callable[[WorkerSpec, socket.socket], int]  # gets its end of the channel, returns the exit status


class WorkerHandle:
    """One worker process."""

    def __init__(self, index: int, pid: int, channel: MessageChannel) -> None:
        self.index = index
        self.pid = pid
        self.is_healthy = True
        self.failure: str | None = None  # why it could not start or serve, for an operator
        self.killed_because: str | None = None
        self.unanswered_pings = 0
        self.statistics: Snapshot = merge(())
        self.max_batches: dict[str, int] = {}  # of the models it has prepared, by SHA-256
        self.files: tuple[ModelFile, ...] = ()  # which it serves
        self._channel = channel
        self._loaded_at: float | None = None
        self._last_healthy_at = 0.0
        self._replies = PendingReplies[str | None]()
        self._has_closed = asyncio.Event()

    @classmethod
    async def start(cls, main: WorkerMain, spec: WorkerSpec, listener: socket.socket) -> "WorkerHandle":
        """Fork a worker that keeps the listener open. Raises OSError."""
        pid, channel = await fork(partial(main, spec), listener)
        return cls(spec.index, pid, channel)

    @property
    def is_loaded(self) -> bool:
        """Whether its models are loaded."""
        return self._loaded_at is not None

    @property
    def served_s(self) -> float:
        """The seconds since its models were loaded."""
        return 0.0 if self._loaded_at is None else time.monotonic() - self._loaded_at

    @property
    def healthy_s(self) -> float:
        """The seconds from loading its models to its last report of healthy threads."""
        return 0.0 if self._loaded_at is None else max(0.0, self._last_healthy_at - self._loaded_at)

    async def messages(self) -> AsyncIterator[Message]:
        """Update this state by each message from the worker, then yield the message. Raises MessageError."""
        async for message in self._channel.messages():
            self._note(message)
            yield message
        self._has_closed.set()

    def _note(self, message: Message) -> None:
        match message:
            case Loaded(files=files):
                self._loaded_at = time.monotonic()
                self.files = files
            case StartFailure(reason=reason):
                self.failure = reason
            case Health():
                self.unanswered_pings = 0
                self.is_healthy, self.statistics = message.is_healthy, message.statistics
                if self.is_healthy:
                    self._last_healthy_at = time.monotonic()
                self._replies.resolve(message.number, None)
            case Reply():
                self.max_batches.update(message.max_batches)
                self._replies.resolve(message.number, message.failure)

    async def ping(self) -> None:
        """Request the worker's health and statistics, and return once they have arrived."""
        number, reply = self._replies.add()
        self.send(Ping(number))
        await reply

    async def prepare(self, files: tuple[ModelFile, ...]) -> str | None:
        """Let the worker load files beside those that serve; return its failure. Cancelled if the worker ends."""
        number, reply = self._replies.add()
        self.send(Prepare(number, files))
        return await reply

    async def commit(self, serving_set: ServingSet) -> str | None:
        """Let the worker serve these loaded models and no others; return its failure. Cancelled if the worker ends."""
        number, reply = self._replies.add()
        self.send(Commit(number, serving_set))
        self.files = serving_set.files
        return await reply

    def send(self, message: ToWorker) -> None:
        """Send a message that needs no reply."""
        self._channel.send(message)

    def kill(self, reason: str) -> None:
        """Kill the process, even if it hangs or is stopped. Later calls do nothing: the id may be another process's."""
        if self.killed_because is None:
            self.killed_because = reason
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def drain_messages(self) -> None:
        """Wait until all messages of an ended process were noted, cancel open requests, and close the channel."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_closed.wait(), _LAST_MESSAGES_S)
        self._replies.close()
        self._channel.close()
