"""The supervisor's side of validating a model file: it starts a process, limits its time, and reads its result."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

from service.model_files.repository import ModelFile, ModelLocation, ModelRepositoryError, ServingSet
from service.processes.channel import MessageChannel
from service.processes.forking import fork
from service.processes.messages import FileAccepted, FileRefused, Message, MessageError
from service.system.out_of_memory import hint_at_memory

_EXIT_S = 1.0  # for the system to report the end of a process

# What the process runs: it sends `FileAccepted` or `FileRefused` and returns its exit status.
ValidationMain = Callable[[ModelFile, frozenset[str], socket.socket], int]
# Returns a file that may be loaded: its SHA-256 is among those given, or it loads. Raises ModelRepositoryError.
Validate = Callable[[ModelFile, frozenset[str]], Awaitable[ModelFile]]


@dataclass(frozen=True, slots=True)
class RepositoryConfig:
    """The folder of models, and how it is served."""

    folder: ModelLocation
    latest: int  # versions of each model that serve
    serving_set: ServingSet  # at the start
    validation_main: ValidationMain  # for new files
    load_timeout_s: float


class ModelValidator:
    """Validates model files, each in a process of its own."""

    def __init__(self, main: ValidationMain, timeout_s: float) -> None:
        self._main = main
        self._timeout_s = timeout_s
        self._exit_codes: dict[int, asyncio.Future[int]] = {}  # by process id

    async def validate(self, file: ModelFile, accepted: frozenset[str]) -> ModelFile:
        """Return a file that loads or was accepted before, with its digest. Raises ModelRepositoryError."""
        try:
            pid, channel = await fork(partial(self._main, file, accepted))
        except OSError as error:
            raise ModelRepositoryError(
                f"no process could be started to validate it: {error.strerror}; try again later"
            ) from None
        self._exit_codes[pid] = asyncio.get_running_loop().create_future()
        result: Message | None = None
        has_ended = False
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await _only_message(channel)
                has_ended = True
        except TimeoutError:
            raise ModelRepositoryError(
                f"it did not load within {self._timeout_s:g} s; --load-timeout-s sets the limit"
            ) from None
        finally:
            channel.close()
            if not has_ended:
                _kill(pid)
            code = await self._exit_code(pid)
        if result is not None:
            return _validated(file, result)
        how = signal.Signals(-code).name if code < 0 else f"status {code}"
        raise ModelRepositoryError(f"the process that loaded it ended with {how}{hint_at_memory(code)}")

    def note_exit(self, pid: int, code: int) -> None:
        """Note that a process has ended, with its exit code or minus the signal that ended it."""
        if pid in self._exit_codes and not self._exit_codes[pid].done():
            self._exit_codes[pid].set_result(code)

    async def _exit_code(self, pid: int) -> int:
        """Wait until a process has ended; return its exit code."""
        code = 1
        with contextlib.suppress(TimeoutError):
            code = await asyncio.wait_for(self._exit_codes[pid], _EXIT_S)
        del self._exit_codes[pid]
        return code


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def _only_message(channel: MessageChannel) -> Message | None:
    async for message in channel.messages():
        return message
    return None


def _validated(file: ModelFile, result: Message) -> ModelFile:
    match result:
        case FileAccepted():
            return replace(file, sha256=result.sha256, has_card=result.has_card)
        case FileRefused():
            raise ModelRepositoryError(result.reason)
    raise MessageError(f"unexpected message of a validation process: {result.kind}")
