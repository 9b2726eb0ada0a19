"""Changes of models while the server runs: a separate process validates new files, then all workers load them.

A refused file leaves everything as it was; the list of models shows the reason. Changes run one at a time.
"""

import asyncio
import logging
from typing import Literal

from service.errors import ModelRefused, NotFound, NotReady
from service.model_files.repository import (
    ModelFile,
    ModelRepositoryError,
    VersionState,
    check_location,
    is_name,
    model_names,
    versions_of,
)
from service.model_files.serving_set import check_card_stays, warn_about_ignored_folders
from service.model_updates.model_rollout import ModelRollout
from service.model_updates.model_validation import RepositoryConfig, Validate
from service.model_updates.version_states import VersionStates, name_and_number

log = logging.getLogger(__name__)

UNLOADED = "unloaded"  # Triton's word
_FOLDER_GONE = "its folder is gone"


class ModelUpdater:
    """Loads and unloads models by name, and follows the folder of models."""

    def __init__(
        self, repository: RepositoryConfig, *, validate: Validate, states: VersionStates, rollout: ModelRollout
    ) -> None:
        self._folder = repository.folder
        self._latest = repository.latest
        self._validate = validate
        self._states = states
        self._rollout = rollout
        self._unloaded: set[str] = (
            set()
        )  # models that were unloaded by name stay unloaded until they are loaded by name
        self._lock = asyncio.Lock()

    async def change(self, action: Literal["load", "unload"], name: str) -> list[VersionState]:
        """Load the highest versions of a model, or unload it, in all workers; return the states of its versions.

        Raises NotFound, NotReady, ModelRefused.
        """
        if not self._rollout.has_started:
            raise NotReady("The server is still loading its models; try again soon.", retry_after_s=1)
        async with self._lock:
            if not is_name(name):
                raise NotFound("There is no such model in the folder of models.", code="model_not_found")
            await (self._load_by_name(name) if action == "load" else self._unload(name))
        return [state for state in self._rollout.serving_set.states if state.name == name]

    async def reload(self) -> None:
        """Make the serving set follow the folder, except for models that were unloaded by name."""
        await self._rollout.wait_until_started()
        async with self._lock:
            try:
                found = {name: self._versions_of(name) for name in model_names(self._folder)}
            except ModelRepositoryError as error:
                log.error("models are not reloaded: %s", error)
                return
            existing = {name for name, files in found.items() if files != []}
            # A model without a folder that does not serve has no state to list.
            self._states.keep_models(existing | self._unloaded | self._serving_names())
            for name, files in found.items():
                if files and name not in self._unloaded:
                    await self._load(name, files)
            await self._unload_missing(existing)
            await self._rollout.publish_states()
            warn_about_ignored_folders(self._folder)
        serving = self._rollout.serving_set.files
        log.info("reloaded; serving %s", ", ".join(f"{file.name}:{file.version}" for file in serving))

    def _serving_names(self) -> set[str]:
        return {file.name for file in self._rollout.serving_set.files}

    def _versions_of(self, name: str) -> list[ModelFile] | None:
        """Return the versions that should serve; None if the folder is refused, and the served ones stay."""
        try:
            return versions_of(self._folder, name, self._latest)
        except ModelRepositoryError as error:
            self._states.note_refused_folder(error, self._rollout.files_of(name))
            return None

    async def _load_by_name(self, name: str) -> None:
        try:
            files = versions_of(self._folder, name, self._latest)
        except ModelRepositoryError as error:
            self._states.note_refused_folder(error, self._rollout.files_of(name))
            await self._rollout.publish_states()
            raise ModelRefused(f"{name} was refused: {error.reason}.") from None
        if not files:
            raise NotFound("There is no such model in the folder of models.", code="model_not_found")
        self._unloaded.discard(name)
        refusals = await self._load(name, files)
        if refusals:
            raise ModelRefused(" ".join(refusals))

    async def _load(self, name: str, files: list[ModelFile]) -> list[str]:
        """Serve these versions; return the refusals as sentences."""
        results = [await self._validated(file) for file in files]
        good = [file for file in results if isinstance(file, ModelFile)]
        refusals = [text for text in results if isinstance(text, str)]
        serving = self._rollout.files_of(name)
        if refusals:  # the versions that the refused ones would replace stay
            good = sorted({**{f.key: f for f in serving}, **{f.key: f for f in good}}.values(), key=name_and_number)
        new = [file for file in good[-self._latest :] if file not in serving]
        failure = await self._rollout.replace_model(name, good[-self._latest :])
        for file in new:
            if failure is None:
                self._states.note_loaded(file)
            else:
                refusals.append(self._note_refused(file, failure))
        for file in good:
            if file in serving and file in results:
                self._states.set_ready(file)
        if not new and not refusals:
            self._states.note_unchanged()
        self._states.keep_versions(name, [*files, *self._rollout.serving_set.files])
        await self._rollout.publish_states()
        return refusals

    async def _validated(self, file: ModelFile) -> ModelFile | str:
        """Return the file with its digest if it may be loaded, else the refusal as a sentence."""
        if not self._serves_version(file):
            self._states.set_loading(file)
            await self._rollout.publish_states()
        try:
            check_location(self._folder, file)
            found = await self._validate(file, self._rollout.accepted)
            check_card_stays(found, self._rollout.serving_set.files)
            return found
        except ModelRepositoryError as error:
            return self._note_refused(file, error.reason)

    def _note_refused(self, file: ModelFile, reason: str) -> str:
        return self._states.note_refused(file, reason, has_predecessor=self._serves_version(file))

    def _serves_version(self, file: ModelFile) -> bool:
        return any(serving.key == file.key for serving in self._rollout.serving_set.files)

    async def _unload(self, name: str) -> None:
        if not self._rollout.files_of(name) and name not in self._unloaded:
            raise NotFound("No model of this name serves.", code="model_not_found")
        self._unloaded.add(name)
        await self._stop_serving(name, UNLOADED)

    async def _unload_missing(self, existing: set[str]) -> None:
        for name in sorted(self._serving_names() - existing):
            if name == self._rollout.serving_set.default:
                log.error("the default model %s is gone from %s; it still serves", name, self._folder)
            else:
                await self._stop_serving(name, _FOLDER_GONE)

    async def _stop_serving(self, name: str, reason: str) -> None:
        files = self._rollout.files_of(name)
        if files:
            await self._rollout.replace_model(name, [])
            for file in files:
                self._states.note_unloaded(file, reason)
            await self._rollout.publish_states()
