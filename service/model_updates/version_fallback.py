"""The versions that serve when the start has failed with the newest ones: the newest that validation accepts.

Without this, a version that was refused while the server ran and is still in the folder would fail the next start.
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
from service.model_updates.model_validation import RepositoryConfig, Validate

log = logging.getLogger(__name__)


class VersionFallback:
    """Chooses among the versions of the models that the server was started with, once."""

    def __init__(self, repository: RepositoryConfig, validate: Validate) -> None:
        self._repository = repository
        self._validate = validate
        self._names = sorted({file.name for file in repository.serving_set.files})
        self._was_chosen = False

    async def wait_until_overdue(self) -> str:
        """Wait for as long as the first load may take; return the reason of the failure."""
        limit_s = self._repository.load_timeout_s * len(self._repository.serving_set.files)
        await asyncio.sleep(limit_s)
        return f"the models did not load within {limit_s:g} s"

    @property
    def has_alternatives(self) -> bool:
        """Whether any model has several versions, and no choice was made yet."""
        try:
            files = [versions_of(self._repository.folder, name, ALL) for name in self._names]
        except ModelRepositoryError:
            return False
        return not self._was_chosen and any(len(versions) > 1 for versions in files)

    async def choose(self, reason: str) -> ServingSet:
        """Return the newest versions that load, with the states of refused ones, after a start failed for this reason.

        Raises ModelRepositoryError if no version of a model loads, or there are no alternatives.
        """
        if not self.has_alternatives:
            raise ModelRepositoryError(reason)
        self._was_chosen = True
        log.error("the start failed: %s; validating each version separately", reason)
        files: list[ModelFile] = []
        states: list[VersionState] = []
        for name in self._names:
            found = await self._newest_good(name)
            files += found.files
            states += found.states
        return replace(self._repository.serving_set, files=tuple(files), states=tuple(states))

    async def _newest_good(self, name: str) -> "_Found":
        found, first_refusal = _Found([], []), None
        for file in reversed(versions_of(self._repository.folder, name, ALL)):
            if len(found.files) == self._repository.latest:
                break
            try:
                found.add(await self._validated(file))
            except ModelRepositoryError as error:
                first_refusal = first_refusal or ModelRepositoryError(error.reason, path=file.path)
                found.refuse(file, error.reason)
        if not found.files:
            raise first_refusal or ModelRepositoryError(f"no version of {name} is left in the folder of models")
        return found

    async def _validated(self, file: ModelFile) -> ModelFile:
        check_location(self._repository.folder, file)
        return await self._validate(file, frozenset())


@dataclass(frozen=True, slots=True)
class _Found:
    """The versions of one model, in ascending order."""

    files: list[ModelFile]
    states: list[VersionState]

    def add(self, file: ModelFile) -> None:
        self.files.insert(0, file)
        self.states.insert(0, VersionState(*file.key, "LOADING"))

    def refuse(self, file: ModelFile, reason: str) -> None:
        self.states.insert(0, VersionState(*file.key, "UNAVAILABLE", reason))
