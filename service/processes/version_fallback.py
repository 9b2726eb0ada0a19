"""What serves when the start has failed with the newest versions: the newest good ones, as each is tried by itself.

Without this a version that was refused while the server ran, and still lies in the folder, would end the next start.
"""

import asyncio
import logging
from dataclasses import dataclass, replace

from service.model_files.repository import (
    ALL,
    ModelFile,
    ModelRepositoryError,
    ServingSet,
    VersionState,
    check_location,
    versions_of,
)
from service.processes.model_validation import Examine, Repository

log = logging.getLogger(__name__)


class StartFailed(Exception):
    """Nothing serves. The message is one line for an operator."""


class FirstLineup:
    """The versions in the folder of the models that the server was started with."""

    def __init__(self, repository: Repository, examine: Examine) -> None:
        self._repository = repository
        self._examine = examine
        self._names = sorted({file.name for file in repository.lineup.files})
        self._was_chosen = False

    async def overdue(self) -> str:
        """Return, when the first load has taken too long, the reason that says so."""
        limit_s = self._repository.load_timeout_s * len(self._repository.lineup.files)
        await asyncio.sleep(limit_s)
        return f"the models did not load within {limit_s:g} s"

    @property
    def has_a_choice(self) -> bool:
        """Whether any of the models has several versions, and they have not been tried."""
        try:
            files = [versions_of(self._repository.folder, name, ALL) for name in self._names]
        except ModelRepositoryError:
            return False
        return not self._was_chosen and any(len(versions) > 1 for versions in files)

    async def choose(self, reason: str) -> ServingSet:
        """Return the newest versions that load, and what was refused, after a start has failed for this reason.

        Raises ModelRepositoryError if a model has none, or there is nothing to choose from.
        """
        if not self.has_a_choice:
            raise ModelRepositoryError(reason)
        self._was_chosen = True
        log.error("the start failed: %s; each version is tried by itself", reason)
        files: list[ModelFile] = []
        states: list[VersionState] = []
        for name in self._names:
            found = await self._newest_good(name)
            files += found.files
            states += found.states
        return replace(self._repository.lineup, files=tuple(files), states=tuple(states))

    async def _newest_good(self, name: str) -> "_Found":
        found, first_refusal = _Found([], []), None
        for file in reversed(versions_of(self._repository.folder, name, ALL)):
            if len(found.files) == self._repository.latest:
                break
            try:
                found.add(await self._tried(file))
            except ModelRepositoryError as error:
                first_refusal = first_refusal or ModelRepositoryError(error.reason, path=file.path)
                found.refuse(file, error.reason)
        if not found.files:
            raise first_refusal or ModelRepositoryError(f"the versions of {name} are gone from the folder of models")
        return found

    async def _tried(self, file: ModelFile) -> ModelFile:
        check_location(self._repository.folder, file)
        return await self._examine(file, frozenset())


@dataclass(frozen=True, slots=True)
class _Found:
    """Of one model, in ascending order."""

    files: list[ModelFile]
    states: list[VersionState]

    def add(self, file: ModelFile) -> None:
        self.files.insert(0, file)
        self.states.insert(0, VersionState(*file.key, "LOADING"))

    def refuse(self, file: ModelFile, reason: str) -> None:
        self.states.insert(0, VersionState(*file.key, "UNAVAILABLE", reason))
