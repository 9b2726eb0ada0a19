"""The state of every model version that serves, was refused or was unloaded; each change is logged and counted."""

import logging
from collections.abc import Callable, Collection, Iterable
from typing import Literal

from service.model_files.repository import ModelFile, ModelRepositoryError, VersionState

log = logging.getLogger(__name__)

Outcome = Literal["loaded", "unchanged", "refused", "unloaded"]


class VersionStates:
    """States by name and version, in the words of Triton."""

    def __init__(self, count: Callable[[Outcome], None]) -> None:
        """`count` counts one outcome for the metrics."""
        self._count = count
        self._states: dict[tuple[str, str], VersionState] = {}

    def all(self) -> tuple[VersionState, ...]:
        """Return every state, by name and ascending version."""
        return tuple(sorted(self._states.values(), key=name_and_number))

    def reset(self, states: Iterable[VersionState]) -> None:
        """Replace all states; log and count the refusals that are new."""
        states = tuple(states)
        for state in states:
            if state.state == "UNAVAILABLE" and state != self._states.get((state.name, state.version)):
                self._log_refusal(f"{state.name}:{state.version} was refused: {state.reason}.")
        self._states = {(state.name, state.version): state for state in states}

    def set_loading(self, file: ModelFile) -> None:
        """Set the state of a version that does not serve yet and is validated."""
        self._set(file, "LOADING")

    def set_ready(self, file: ModelFile) -> None:
        """Set the state of a version that serves from the file in the folder."""
        self._set(file, "READY")

    def note_loaded(self, file: ModelFile) -> None:
        """Note that a new version serves."""
        self._set(file, "READY")
        self._count("loaded")
        log.info("%s:%s serves, sha256 %s", file.name, file.version, (file.sha256 or "")[:12])

    def note_unchanged(self) -> None:
        """Note that a model was up to date."""
        self._count("unchanged")

    def note_refused(self, file: ModelFile, reason: str, *, has_predecessor: bool) -> str:
        """Note the refusal of a file, and return it as a sentence; a predecessor of the same version still serves."""
        if has_predecessor:
            self._set(file, "READY", f"the new file was refused: {reason}; the previous file still serves")
        else:
            self._set(file, "UNAVAILABLE", reason)
        sentence = f"{file.name}:{file.version} was refused: {reason}."
        self._log_refusal(sentence)
        return sentence

    def note_refused_folder(self, error: ModelRepositoryError, serving: Iterable[ModelFile]) -> None:
        """Note that a model's folder was refused; the versions that serve of it stay."""
        for file in serving:
            self._set(file, "READY", f"the model's folder was refused: {error.reason}; this version still serves")
        self._log_refusal(str(error))

    def note_unloaded(self, file: ModelFile, reason: str) -> None:
        """Note that a version no longer serves."""
        self._set(file, "UNAVAILABLE", reason)
        self._count("unloaded")
        log.info("%s:%s was unloaded: %s", file.name, file.version, reason)

    def keep_models(self, names: Collection[str]) -> None:
        """Forget the models of other names."""
        self._states = {key: state for key, state in self._states.items() if key[0] in names}

    def keep_versions(self, name: str, files: Iterable[ModelFile]) -> None:
        """Forget the other versions of a model."""
        kept = {file.key for file in files}
        self._states = {key: state for key, state in self._states.items() if key[0] != name or key in kept}

    def _set(self, file: ModelFile, state: Literal["LOADING", "READY", "UNAVAILABLE"], reason: str = "") -> None:
        self._states[file.key] = VersionState(file.name, file.version, state, reason)

    def _log_refusal(self, sentence: str) -> None:
        log.error("%s", sentence)
        self._count("refused")


def name_and_number(version: ModelFile | VersionState) -> tuple[str, int]:
    """Return the key that sorts versions by name and number."""
    return version.name, int(version.version)
