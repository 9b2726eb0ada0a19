"""The set of models that serves in all workers, and its change in two steps: all workers load, then all switch.

If one worker cannot load a file, no worker switches.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace

from service.model_files.repository import ModelFile, ServingSet
from service.model_updates.version_states import VersionStates, name_and_number
from service.processes.worker_fleet import WorkerFleet
from service.processes.worker_handle import WorkerHandle

log = logging.getLogger(__name__)


class ModelRollout:
    """Owns the serving set. Workers start with it and receive every change of it."""

    def __init__(self, serving_set: ServingSet, states: VersionStates, workers: WorkerFleet) -> None:
        self._states = states
        self._workers = workers
        self._max_batches: dict[str, int] = {}  # which all workers use, by SHA-256
        self._accepted: frozenset[str] = frozenset()
        self._has_started = asyncio.Event()
        self._lock = asyncio.Lock()
        self.begin_with(serving_set)

    @property
    def serving_set(self) -> ServingSet:
        """The models that serve, and the states of all versions."""
        return self._serving_set

    @property
    def accepted(self) -> frozenset[str]:
        """The digests of files that serve or have served."""
        return self._accepted

    @property
    def has_started(self) -> bool:
        """Whether a worker has loaded the first set."""
        return self._has_started.is_set()

    async def wait_until_started(self) -> None:
        """Return when a worker has loaded the first set."""
        await self._has_started.wait()

    def files_of(self, name: str) -> list[ModelFile]:
        """Return the versions of a model that serve, in ascending order."""
        return [file for file in self._serving_set.files if file.name == name]

    def begin_with(self, serving_set: ServingSet) -> None:
        """Set the models of the next start; call it only while no worker serves."""
        self._states.reset(serving_set.states)
        self._has_started.clear()
        self._serving_set = serving_set

    async def bring_up_to_date(self, worker: WorkerHandle) -> str | None:
        """Let a newly loaded worker serve what all serve; return its failure. Cancelled if the worker ends."""
        async with self._lock:
            if not self.has_started:
                self._start_with(worker.files)
            self._agree({file.sha256: file.max_batch for file in worker.files if file.sha256 and file.max_batch})
            if set(worker.files) == set(self._serving_set.files):
                failure = None
            else:
                failure = await worker.prepare(self._serving_set.files)
            return failure or await worker.commit(self._serving_set)

    def _start_with(self, files: tuple[ModelFile, ...]) -> None:
        self._has_started.set()
        self._accepted = frozenset(file.sha256 for file in files if file.sha256)
        for file in files:
            self._states.set_ready(file)
        self._serving_set = replace(self._serving_set, files=files, states=self._states.all())

    async def replace_model(self, name: str, files: Iterable[ModelFile]) -> str | None:
        """Serve exactly these versions of a model in all workers; return a failure, and then nothing has changed."""
        async with self._lock:
            others = [file for file in self._serving_set.files if file.name != name]
            proposed = replace(self._serving_set, files=tuple(sorted([*others, *files], key=name_and_number)))
            new = tuple(file for file in proposed.files if file not in self._serving_set.files)
            failure = await self._workers.prepare(new) if new else None
            if failure is None:
                self._serving_set = proposed
                self._accepted |= {file.sha256 for file in new if file.sha256}
                self._agree({key: most for worker in self._workers for key, most in worker.max_batches.items()})
            await self._commit()
            return failure

    async def publish_states(self) -> None:
        """Send the states of all versions to the workers, which list them."""
        async with self._lock:
            self._serving_set = replace(self._serving_set, states=self._states.all())
            await self._commit()

    def _agree(self, max_batches: dict[str, int]) -> None:
        """Let all workers use the batch size that the first one measured."""
        self._max_batches = max_batches | self._max_batches
        files = (replace(file, max_batch=self._max_batches.get(file.sha256 or "")) for file in self._serving_set.files)
        self._serving_set = replace(self._serving_set, files=tuple(files))

    async def _commit(self) -> None:
        failure = await self._workers.commit(self._serving_set)
        if failure is not None:
            log.error("a worker does not serve the current models: %s", failure)
