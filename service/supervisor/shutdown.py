"""The end of a server: when it is requested, with which exit status, and how the workers are stopped."""

import asyncio
import contextlib

from service.processes.messages import Stop, StopNow
from service.processes.worker_fleet import WorkerFleet


class StartFailed(Exception):
    """The server could not start. The message is one line for an operator."""


class Shutdown:
    """The request to stop, from a signal or after a failure."""

    def __init__(self) -> None:
        self._requested, self._urgent = asyncio.Event(), asyncio.Event()
        self._status = 0
        self._start_failure: str | None = None

    @property
    def is_requested(self) -> bool:
        """Whether the server is to stop."""
        return self._requested.is_set()

    @property
    def has_start_failure(self) -> bool:
        """Whether the server stops because it could not start."""
        return self._start_failure is not None

    def request(self, status: int = 0) -> None:
        """Request a stop with this exit status."""
        self._status = status
        self._requested.set()

    def fail_start(self, reason: str) -> None:
        """Request a stop because no worker can serve; `reason` is one line for an operator."""
        self._start_failure = reason
        self._requested.set()

    def on_signal(self) -> None:
        """Request a stop; a second signal cuts the drain short."""
        if self.is_requested:
            self._urgent.set()
        else:
            self.request()

    async def wait(self) -> None:
        """Return when a stop is requested."""
        await self._requested.wait()

    async def stop_workers(self, workers: WorkerFleet, *, longest_s: float) -> None:
        """Let every worker finish what it has accepted; kill those that have not ended after `longest_s`."""
        workers.send(Stop())
        hurrying = asyncio.create_task(self._hurry(workers))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(workers.wait_until_empty(), longest_s)
        hurrying.cancel()
        for worker in workers:
            worker.kill("it did not stop in time")

    async def _hurry(self, workers: WorkerFleet) -> None:
        await self._urgent.wait()
        workers.send(StopNow())

    def exit_status(self) -> int:
        """Return the exit status. Raises StartFailed."""
        if self._start_failure is not None:
            raise StartFailed(self._start_failure)
        return self._status
