"""A worker as its supervisor sees it: a forked process, the pipe to it, and what it last said.

Forked, so that it shares the listening socket and the board; what it needs beyond that it imports itself.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

from service.inference.layout import WorkerLayout
from service.model_files.repository import ModelFile, ServingSet, files_from
from service.processes.channel import MessageChannel
from service.processes.signals import DECIDED_ABOVE, HEARD
from service.telemetry.prometheus import Snapshot, added

log = logging.getLogger(__name__)

_LAST_WORDS_S = 1.0
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is started for."""

    place: int  # among the workers, from 0
    layout: WorkerLayout | None  # None: it shall find out
    listens_after_s: float  # or when its models are loaded, if that is earlier
    lineup: ServingSet


Work = Callable[[Task, socket.socket], int]  # what a worker runs, with its end of the pipe; returns its exit status


class WorkerHandle:
    """One worker process."""

    def __init__(self, place: int, pid: int, pipe: MessageChannel) -> None:
        self.place = place
        self.pid = pid
        self.is_healthy = True
        self.failure: str | None = None  # why it could not start, in its own words
        self.killed_because: str | None = None
        self.unanswered = 0  # ticks since it last answered
        self.statistics: Snapshot = added(())
        self.max_batches: dict[str, int] = {}  # of what it has prepared, by SHA-256
        self._pipe = pipe
        self._loaded_at: float | None = None
        self._well_at = 0.0  # when it last said that it is sound
        self.files: tuple[ModelFile, ...] = ()  # what it serves
        self._questions = 0
        self._awaited: dict[int, asyncio.Future[str | None]] = {}
        self._has_said_all = asyncio.Event()

    @classmethod
    async def start(cls, work: Work, task: Task, listener: socket.socket) -> "WorkerHandle":
        """Fork a process that does the work, with nothing open but the listener and its end of the pipe."""
        pid, pipe = await fork(partial(work, task), listener)
        return cls(task.place, pid, pipe)

    @property
    def is_loaded(self) -> bool:
        """Whether its models are loaded, so that it answers."""
        return self._loaded_at is not None

    @property
    def served_s(self) -> float:
        """For how long it has had its models."""
        return 0.0 if self._loaded_at is None else time.monotonic() - self._loaded_at

    @property
    def served_well_s(self) -> float:
        """For how long it has had its models and said that it is sound."""
        return 0.0 if self._loaded_at is None else max(0.0, self._well_at - self._loaded_at)

    async def messages(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what it says, once it is noted here."""
        async for message in self._pipe.messages():
            if "loaded" in message:
                self._loaded_at = time.monotonic()
                self.files = files_from(message["files"])
            elif "pong" in message:
                self._note_pong(message)
            elif "reply" in message:
                self.max_batches.update(message.get("max_batches", {}))
                self._settle(message["reply"], message["failure"])
            self.failure = message.get("failed", self.failure)
            yield message
        self._has_said_all.set()

    def _note_pong(self, message: dict[str, Any]) -> None:
        self.unanswered = 0
        self.is_healthy, self.statistics = message["is_healthy"], message["statistics"]
        if self.is_healthy:
            self._well_at = time.monotonic()
        self._settle(message["pong"], None)

    def _settle(self, number: int, failure: str | None) -> None:
        answered = self._awaited.pop(number, None)
        if answered is not None and not answered.done():
            answered.set_result(failure)

    def _expect(self) -> tuple[int, asyncio.Future[str | None]]:
        self._questions += 1
        answered = self._awaited[self._questions] = asyncio.get_running_loop().create_future()
        return self._questions, answered

    async def ping(self) -> None:
        """Return when it has said how it is, with its newest statistics."""
        number, answered = self._expect()
        self._pipe.send({"ping": number})
        await answered

    async def prepare(self, files: tuple[ModelFile, ...]) -> str | None:
        """Let it load models beside those that serve; return why it could not. Cancelled if it ends."""
        number, answered = self._expect()
        self._pipe.send({"prepare": files, "number": number})
        return await answered

    async def take(self, lineup: ServingSet) -> str | None:
        """Let it serve these models, which it has prepared or serves, and no others; return why it could not."""
        number, answered = self._expect()
        self._pipe.send({"lineup": lineup, "number": number})
        self.files = lineup.files
        return await answered

    def send_total(self, number: int, statistics: Snapshot) -> None:
        """Answer its question for the statistics of all processes."""
        self._pipe.send({"total": number, "statistics": statistics})

    def order(self, order: str) -> None:
        """Tell it to `serve`, `stop` or `hurry`."""
        self._pipe.send({"order": order})

    def kill(self) -> None:
        """End it at once, even if it hangs or is stopped."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def drain_messages(self) -> None:
        """Return when everything that it had said before it ended was noted."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_said_all.wait(), _LAST_WORDS_S)
        for answered in self._awaited.values():
            answered.cancel()
        self._pipe.close()


def reap_children() -> Iterator[tuple[int, int]]:
    """Yield process id and wait status of every child that has ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, status


async def fork(work: Callable[[socket.socket], int], *kept: socket.socket) -> tuple[int, MessageChannel]:
    """Run the work in a process of its own, with nothing open but its end of a pipe and what is kept.

    It ends with the thread that calls this, at once and even if it is stopped. Returns the process's id and our end of
    the pipe; what the work returns is its exit status. Raises OSError if the system has no more processes or files.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        pipe = await MessageChannel.open(ours)
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, HEARD)  # the child shares our wake-up pipe until it lets go of it
        try:
            pid = os.fork()
            if pid == 0:
                _become_child(work, parent, theirs, kept)
        except OSError:
            pipe.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
    return pid, pipe


def _become_child(
    work: Callable[[socket.socket], int], parent: int, pipe: socket.socket, kept: Sequence[socket.socket]
) -> NoReturn:
    status = 1
    try:
        _end_with(parent)
        signal.set_wakeup_fd(-1)
        for number in DECIDED_ABOVE:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        _let_go_of_all_but(pipe.fileno(), *(socket.fileno() for socket in kept))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEARD)
        status = work(pipe)
    except BaseException:  # nothing may get back into the supervisor's code
        log.exception("a process failed")
    finally:
        logging.shutdown()
        os._exit(status)  # all that is left is memory: the system takes it back at once, Python needs up to a second


def _end_with(parent: int) -> None:
    """Have the system kill this process when its parent ends; leave if that has happened already."""
    with contextlib.suppress(AttributeError):  # Linux alone has it; elsewhere a worker ends when its pipe is closed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _let_go_of_all_but(*kept: int) -> None:
    """Put /dev/null in the place of the supervisor's files: closed, their numbers would be taken by others."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2 and number not in (*kept, nothing):
            with contextlib.suppress(OSError):  # the listing's own is closed by now
                os.fstat(number)
                os.dup2(nothing, number, inheritable=False)
