"""The first start, until all workers are ready: a failure is retried once with older versions, or ends the server."""

from collections.abc import Callable

from service.http.readiness import Readiness
from service.model_files.repository import ModelRepositoryError, ServingSet
from service.model_updates.version_fallback import VersionFallback
from service.processes.worker_fleet import WorkerFleet
from service.supervisor.shutdown import Shutdown
from service.system.background_tasks import Background


class FirstStart:
    """Decides what follows when a worker fails before the server was ready."""

    def __init__(
        self,
        fallback: VersionFallback,
        workers: WorkerFleet,
        readiness: Readiness,
        shutdown: Shutdown,
        *,
        restart: Callable[[ServingSet], None],
    ) -> None:
        """`restart` starts all workers again with another set of versions."""
        self._fallback = fallback
        self._workers = workers
        self._readiness = readiness
        self._shutdown = shutdown
        self._restart = restart
        self._tasks = Background(lambda: None)
        self._first_reason: str | None = None

    def note_failure(self, reason: str) -> None:
        """Kill all workers; once none is left, restart with other versions or end the server with the first reason."""
        self._first_reason = self._first_reason or reason
        for worker in self._workers:
            worker.kill("another could not start")
        if not self._workers and not self._shutdown.is_requested:
            first, self._first_reason = self._first_reason, None
            self._tasks.start(self._retry(first), on_failure=lambda: self._shutdown.fail_start(first))

    async def _retry(self, reason: str) -> None:
        try:
            serving_set = await self._fallback.choose(reason)
        except ModelRepositoryError as error:
            self._shutdown.fail_start(str(error))
            return
        self._restart(serving_set)

    async def limit_duration(self) -> None:
        """Fail the start if loading takes too long and other versions could serve."""
        reason = await self._fallback.wait_until_overdue()
        if not self._readiness.is_ready and self._fallback.has_alternatives:
            self.note_failure(reason)
