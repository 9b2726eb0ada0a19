"""Statistics of all processes of a server: running workers, ended workers, and the supervisor itself."""

import asyncio
from typing import get_args

from service.errors import Expired, Overloaded
from service.http.readiness import Readiness
from service.model_updates.version_states import Outcome
from service.processes.messages import StatisticsReply
from service.processes.worker_fleet import WorkerFleet
from service.processes.worker_handle import WorkerHandle
from service.system.cores import available_cores
from service.system.memory import memory
from service.telemetry.prometheus import Snapshot, counter, merge, process_snapshot, render, uptime_s, without_gauges

_FROM_THE_START = (
    *(("resnet_reloads", outcome) for outcome in get_args(Outcome)),
    *(("resnet_refusals", code) for code in (Overloaded.code, Expired.code, "cannot_make_it")),
    ("resnet_process_deaths", "signal 9"),
    ("resnet_requests", "/classify", "POST", "200"),
)
_SCRAPE_S = 1.0  # for fresh statistics; a worker that does not reply counts with its last ones


class Totals:
    """What the supervisor has counted, and the last statistics of its workers."""

    def __init__(self, workers: WorkerFleet, readiness: Readiness) -> None:
        self._workers, self._readiness = workers, readiness
        # Of the supervisor and of ended workers. Series begin at 0: Prometheus sees no increase in a first value.
        self._ended: Snapshot = merge(counter(*labels, times=0) for labels in _FROM_THE_START)

    def count(self, *labels: str) -> None:
        """Count one event of the supervisor."""
        self._ended = merge((self._ended, counter(*labels)))

    def keep(self, worker: WorkerHandle) -> None:
        """Keep the counters of a worker that has ended."""
        self._ended = merge((self._ended, without_gauges(worker.statistics)))

    async def collect(self) -> Snapshot:
        """Return the sum, with fresh statistics of every worker that replies within 1 s."""
        replies = [asyncio.ensure_future(worker.ping()) for worker in self._workers]
        if replies:
            _, late = await asyncio.wait(replies, timeout=_SCRAPE_S)
            for reply in late:
                reply.cancel()
        # The workers are iterated again: a worker that was removed meanwhile is counted among the ended ones.
        own = (self._ended, process_snapshot(), _server_snapshot(self._readiness))
        return merge((*own, *(worker.statistics for worker in self._workers)))

    async def render(self) -> bytes:
        """Return the sum in Prometheus' text format."""
        return render(await self.collect())

    async def reply(self, worker: WorkerHandle, number: int) -> None:
        """Answer a worker's request for the sum."""
        worker.send(StatisticsReply(number, await self.collect()))


def _server_snapshot(readiness: Readiness) -> Snapshot:
    """Return what holds for the server as a whole, so that only the supervisor reports it."""
    in_use = memory()
    gauges = {
        "resnet_ready": float(readiness.is_ready),
        "resnet_uptime_seconds": uptime_s(),
        "resnet_cores": float(available_cores()),
        "resnet_memory_bytes": float(in_use.used),
        "resnet_memory_limit_bytes": float(in_use.limit),
    }
    return Snapshot(counters={}, gauges=gauges, models=[])
