"""Processes that decode images in parallel, each with its own pipe.

The pipe of a process that dies closes, which ends the wait for its reply at once. Each process ends when its own pipe
closes, and so with the parent process.
"""

import contextlib
import os
import subprocess
import sys
import weakref
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import IO

import numpy as np
from numpy.typing import NDArray

from training.data.crops import CropSpec
from training.data.decoder_process import Decoded, Request, receive
from training.data_files.listing import DataError, Place

IMAGES_AT_A_TIME = 16  # in a request to a process
_COMMAND = (sys.executable, "-c", "from training.data.decoder_process import serve; serve()")


class _Worker:
    """One process and its pipes."""

    def __init__(self) -> None:
        folders = os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
        self._process = subprocess.Popen(  # noqa: S603 - the interpreter that runs this
            _COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": folders}
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, request: Request) -> Decoded:
        """Return the reply to a request. Raises DataError if the process has died."""
        requests, replies = self._pipes()
        try:
            requests.write(request.line())
            requests.flush()
            return receive(replies)
        except (OSError, EOFError, ValueError):  # ValueError: the pipe is closed, or this is no answer
            raise DataError(self._obituary()) from None

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        if self._process.stdin is None or self._process.stdout is None:
            raise ValueError("the process was started without pipes")
        return self._process.stdin, self._process.stdout

    def _obituary(self) -> str:
        self._process.kill()
        status = self._process.wait()
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return (
            f"a process that decodes images {how}; perhaps memory is short: "
            "continue with --resume, if necessary with fewer --decoders"
        )

    def end(self) -> None:
        """Kill the process, which has no state to save."""
        self._process.kill()
        self._process.wait()
        for pipe in self._pipes():
            with contextlib.suppress(OSError):  # of a request that could not be sent
                pipe.close()


class Decoders:
    """A number of decoding processes, started with the first request."""

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"there must be at least one decoding process, not {count}")
        self.count = count
        self._workers: list[_Worker] = []
        self._idle: SimpleQueue[_Worker] = SimpleQueue()
        self._threads = ThreadPoolExecutor(count, "decoders")  # one waits for each process
        self._end = weakref.finalize(self, _end, self._workers)

    def submit(
        self,
        places: Sequence[Place],
        crop: CropSpec,
        draws: Sequence[tuple[int, int, int]] = (),
        *,
        with_digests: bool = False,
    ) -> list["Future[Decoded]"]:
        """Request crops of images, in parts; the parts' answers, in order, are those of all.

        An answer raises DataError if the process that should have given it has died.
        """
        while len(self._workers) < self.count:
            self._workers.append(_Worker())
            self._idle.put(self._workers[-1])
        parts = [slice(start, start + IMAGES_AT_A_TIME) for start in range(0, len(places), IMAGES_AT_A_TIME)]
        return [
            self._threads.submit(self._ask, Request(places[part], crop, draws[part], with_digests)) for part in parts
        ]

    def looked_through(self, places: Sequence[Place], crop: CropSpec) -> tuple[dict[int, str], list[int]]:
        """Return the images that cannot be decoded, with reasons, and the digests of the others' files, in order.

        Raises DataError if a process dies.
        """
        failed: dict[int, str] = {}
        digests: list[int] = []
        for part, answer in enumerate(self.submit(places, crop, with_digests=True)):
            found = answer.result()
            failed |= {part * IMAGES_AT_A_TIME + index: reason for index, reason in found.failed.items()}
            digests += found.digests
        return failed, digests

    def _ask(self, request: Request) -> Decoded:
        worker = self._idle.get()
        try:
            return worker.ask(request)
        finally:
            self._idle.put(worker)

    def pids(self) -> list[int]:
        """Return the ids of the processes that have been started."""
        return [worker.pid for worker in self._workers]

    def close(self) -> None:
        """End the processes; pending replies fail."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._end()
        self._threads.shutdown()


def _end(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.end()


def gathered(answers: Sequence["Future[Decoded]"], places: Sequence[Place]) -> NDArray[np.uint8]:
    """Wait for all answers; return uint8 (N, size, size, 3). Raises DataError if an image cannot be decoded."""
    decoded = [answer.result() for answer in answers]
    for part, found in enumerate(decoded):
        for index, reason in found.failed.items():
            path = places[part * IMAGES_AT_A_TIME + index].path
            raise DataError(f"{path} could be decoded before and no longer can ({reason}); put it back, then --resume")
    return np.concatenate([found.pixels for found in decoded])
