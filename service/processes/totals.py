"""Statistics of all processes of a server: those that run, those that have ended, and the supervisor's own."""

import asyncio
from collections.abc import Callable, Iterable
from typing import get_args

from service.processes.model_updates import Outcome
from service.processes.worker_handle import WorkerHandle
from service.telemetry.prometheus import Snapshot, added, counted, process_snapshot, render, without_gauges

_SCRAPE_S = 1.0  # for fresh statistics; of a worker that does not answer, the last ones count


class Totals:
    """What the supervisor has counted, and what its workers have told it."""

    def __init__(self, workers: Callable[[], Iterable[WorkerHandle]]) -> None:
        self._workers = workers
        # Of the supervisor and of workers that are no more. Series begin at 0, not with their first event.
        self._ended: Snapshot = added(counted("resnet_reloads", outcome, times=0) for outcome in get_args(Outcome))

    def count(self, *labels: str) -> None:
        """Count one event of the supervisor."""
        self._ended = added((self._ended, counted(*labels)))

    def keep(self, worker: WorkerHandle) -> None:
        """Keep what a worker had counted, which has ended."""
        self._ended = added((self._ended, without_gauges(worker.statistics)))

    async def ask(self) -> Snapshot:
        """Return the sum, as fresh as the workers answer."""
        answers = [asyncio.ensure_future(worker.ping()) for worker in self._workers()]
        if answers:
            _, late = await asyncio.wait(answers, timeout=_SCRAPE_S)
            for answer in late:
                answer.cancel()
        # Not the workers of before: one that was buried meanwhile is counted among those that have ended.
        return added((self._ended, process_snapshot(), *(worker.statistics for worker in self._workers())))

    async def render(self) -> bytes:
        """Return the sum in Prometheus' text format."""
        return render(await self.ask())

    async def tell(self, worker: WorkerHandle, number: int) -> None:
        """Answer a worker's question for the sum."""
        worker.send_total(number, await self.ask())
