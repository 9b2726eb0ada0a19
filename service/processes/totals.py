"""Statistics of all processes of a server: running workers, ended workers, and the supervisor itself."""

import asyncio
from typing import get_args

from service.processes.messages import StatisticsReply
from service.processes.version_states import Outcome
from service.processes.worker_fleet import WorkerFleet
from service.processes.worker_handle import WorkerHandle
from service.telemetry.prometheus import Snapshot, added, counted, process_snapshot, render, without_gauges

_SCRAPE_S = 1.0  # for fresh statistics; a worker that does not reply counts with its last ones


class Totals:
    """What the supervisor has counted, and the last statistics of its workers."""

    def __init__(self, workers: WorkerFleet) -> None:
        self._workers = workers
        # Of the supervisor and of ended workers. Series begin at 0, not with their first event.
        self._ended: Snapshot = added(counted("resnet_reloads", outcome, times=0) for outcome in get_args(Outcome))

    def count(self, *labels: str) -> None:
        """Count one event of the supervisor."""
        self._ended = added((self._ended, counted(*labels)))

    def keep(self, worker: WorkerHandle) -> None:
        """Keep the counters of a worker that has ended."""
        self._ended = added((self._ended, without_gauges(worker.statistics)))

    async def collect(self) -> Snapshot:
        """Return the sum, with fresh statistics of every worker that replies within 1 s."""
        replies = [asyncio.ensure_future(worker.ping()) for worker in self._workers]
        if replies:
            _, late = await asyncio.wait(replies, timeout=_SCRAPE_S)
            for reply in late:
                reply.cancel()
        # Iterate anew: a worker that was removed meanwhile is counted among the ended ones.
        return added((self._ended, process_snapshot(), *(worker.statistics for worker in self._workers)))

    async def render(self) -> bytes:
        """Return the sum in Prometheus' text format."""
        return render(await self.collect())

    async def reply(self, worker: WorkerHandle, number: int) -> None:
        """Answer a worker's request for the sum."""
        worker.send(StatisticsReply(number, await self.collect()))
