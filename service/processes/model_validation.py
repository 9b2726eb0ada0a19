"""The supervisor's side of trying a model file: a process for it, a limit of time, and what became of it."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from service.model_files.repository import ModelFile, ModelRepositoryError, ServingSet
from service.processes.channel import MessageChannel
from service.processes.worker_handle import fork
from service.system.out_of_memory import hint_at_memory

_LAST_MOMENT_S = 1.0  # for the system to say how a process ended

# What the process runs: it sends `{"sha256": …, "has_card": …}` or `{"refused": …}` and returns its exit status.
Examination = Callable[[ModelFile, frozenset[str], socket.socket], int]
# Returns a file that may be loaded, as its SHA-256 is among those given or it was tried. Raises ModelRepositoryError.
Examine = Callable[[ModelFile, frozenset[str]], Awaitable[ModelFile]]


@dataclass(frozen=True, slots=True)
class Repository:
    """The folder of models, and how it is served."""

    folder: Path
    latest: int  # versions of each model that serve
    lineup: ServingSet  # at the start
    examination: Examination  # of a file that is new
    load_timeout_s: float


class Examiner:
    """Tries one file at a time."""

    def __init__(self, examination: Examination, timeout_s: float) -> None:
        self._examination = examination
        self._timeout_s = timeout_s
        self._ends: dict[int, asyncio.Future[int]] = {}  # by process id

    async def examine(self, file: ModelFile, accepted: frozenset[str]) -> ModelFile:
        """Return a file that loads or was accepted before, with its findings. Raises ModelRepositoryError."""
        try:
            pid, pipe = await fork(partial(self._examination, file, accepted))
        except OSError as error:
            raise ModelRepositoryError(
                f"no process could be started to try it: {error.strerror}; try again later"
            ) from None
        self._ends[pid] = asyncio.get_running_loop().create_future()
        verdict: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(self._timeout_s):
                verdict = await _only_message(pipe)
        except TimeoutError:
            raise ModelRepositoryError(
                f"it did not load within {self._timeout_s:g} s; --load-timeout-s sets the limit"
            ) from None
        finally:
            pipe.close()
            if verdict is None:
                _kill(pid)
            code = await self._end_of(pid)
        if verdict:
            return _judged(file, verdict)
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        raise ModelRepositoryError(f"loading it ended the process that tried, with {how}{hint_at_memory(code)}")

    def note_end(self, pid: int, code: int) -> None:
        """Hear that a process has ended, with its exit code or minus the signal that ended it."""
        if pid in self._ends and not self._ends[pid].done():
            self._ends[pid].set_result(code)

    async def _end_of(self, pid: int) -> int:
        """Wait until a process is gone, which has nothing left to do; return how it ended."""
        code = 1
        with contextlib.suppress(TimeoutError):
            code = await asyncio.wait_for(self._ends[pid], _LAST_MOMENT_S)
        del self._ends[pid]
        return code


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def _only_message(pipe: MessageChannel) -> dict[str, Any]:
    async for message in pipe.messages():
        return message
    return {}


def _judged(file: ModelFile, verdict: dict[str, Any]) -> ModelFile:
    if "refused" in verdict:
        raise ModelRepositoryError(verdict["refused"])
    return replace(file, sha256=verdict["sha256"], has_card=verdict["has_card"])
