"""The choice of the models and versions to serve from a folder of models.

The highest version of each name is served, or the highest few. A model file is opened only to look for a model card,
where several models could be the default.
"""

import contextlib
import logging
import mmap
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from service.model_files.default_model import AmbiguousDefault, DefaultModel, default_of
from service.model_files.installed_models import installed_models
from service.model_files.repository import (
    ALL,
    MODEL_FILE,
    MODEL_VERSION,
    RULE_OF_NAMES,
    ModelFile,
    ModelLocation,
    ModelRepositoryError,
    ServingSet,
    VersionState,
    check_location,
    folder_hint,
    is_name,
    may_exist,
    model_names,
    versions_of,
)
from service.model_files.single_model import SingleModel, find_single_model

log = logging.getLogger(__name__)

_DEFAULT_FOLDER = Path("models")
_CARD = b"model_card"  # its key in the metadata of a file


def locate_models(path: Path, model_name: str | None = None) -> ModelLocation:
    """Return a folder of models, or the single model that a path names, with this name if one is given.

    Where there is no folder at the default path, the model of an installed wheel takes its place.
    Raises ModelRepositoryError if the name is none, or the path is no single model.
    """
    if path == _DEFAULT_FOLDER and not path.exists():
        path = installed_models() or path
    single = find_single_model(path, MODEL_FILE, MODEL_VERSION.fullmatch)
    if model_name is None:
        return path if single is None else single
    if single is None:
        raise ModelRepositoryError(
            f"--model-name {model_name} needs a single model, not {path}; point --models at a file, or a "
            f"folder with {MODEL_FILE} or <version>/{MODEL_FILE}"
        )
    if not is_name(model_name):
        raise ModelRepositoryError(f"--model-name {model_name!r} cannot be used: {RULE_OF_NAMES}")
    return replace(single, name=model_name)


def read_serving_set(folder: ModelLocation, *, default_model: str | None, latest: int = 1) -> ServingSet:
    """Return the models to serve at the start, and versions rejected for their location.

    Raises ModelRepositoryError.
    """
    found = _find(folder, latest)
    files = [file for file, refusal in found if refusal is None]
    default = choose_model(files, default_model, flag="--default-model")
    states = (
        VersionState(*file.key, "LOADING")
        if refusal is None
        else VersionState(*file.key, "UNAVAILABLE", refusal.reason)
        for file, refusal in found
    )
    return ServingSet(default.name, tuple(files), tuple(states), default.reason)


def find_models(folder: ModelLocation, latest: int = 1) -> list[ModelFile]:
    """Return the highest versions of each model whose location is valid, by name.

    Raises ModelRepositoryError if there is no model, or a model has no valid version.
    """
    return [file for file, refusal in _find(folder, latest) if refusal is None]


def _find(folder: ModelLocation, latest: int) -> list[tuple[ModelFile, ModelRepositoryError | None]]:
    found = [version for name in model_names(folder) for version in _placed_versions_of(folder, name, latest)]
    if not found:
        if isinstance(folder, SingleModel):
            raise ModelRepositoryError(f"the model at {folder} no longer exists; name another with --models")
        raise ModelRepositoryError(
            f"there is no model in {folder}: put one at <name>/<version>/{MODEL_FILE}, as export-onnx does, or "
            f"{folder_hint(folder)}"
        )
    return found


def _placed_versions_of(
    folder: ModelLocation, name: str, latest: int
) -> list[tuple[ModelFile, ModelRepositoryError | None]]:
    """Return a model's highest valid versions and rejected higher ones.

    Raises ModelRepositoryError if none is valid.
    """
    found: list[tuple[ModelFile, ModelRepositoryError | None]] = []
    remaining = latest
    for file in reversed(versions_of(folder, name, ALL)):
        refusal = _refusal_of_place(folder, file)
        found.insert(0, (file, refusal))
        remaining -= refusal is None
        if not remaining:
            break
    if found and remaining == latest:
        raise found[-1][1] or AssertionError("a version was refused without a reason")
    return found


def _refusal_of_place(folder: ModelLocation, file: ModelFile) -> ModelRepositoryError | None:
    try:
        check_location(folder, file)
    except ModelRepositoryError as error:
        return error
    return None


def choose_model(files: list[ModelFile], requested: str | None, *, flag: str) -> DefaultModel:
    """Return the default model: `requested` if given, else by the rule of `default_model`.

    A model without a card cannot classify images, so it is the default only if no model has one. Raises
    ModelRepositoryError, with the flag that chooses a model, if the rule does not decide.
    """
    names = list(dict.fromkeys(file.name for file in files))
    if requested is not None:
        if requested not in names:
            raise ModelRepositoryError(f"there is no model {requested!r} for {flag}; there are: {', '.join(names)}")
        return DefaultModel(requested, f"{flag} names it")
    if len(names) > 1:
        names = list(dict.fromkeys(file.name for file in files if _may_have_card(file.path))) or names
    try:
        return default_of(names)
    except AmbiguousDefault as error:
        raise ModelRepositoryError(
            f"there are several models of your own; choose one with {flag}: {', '.join(error.names)}"
        ) from None


def _may_have_card(path: Path) -> bool:
    """Return whether a file contains the key of a model card, near its end; also true for an unreadable file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.rfind(_CARD) >= 0
    except (OSError, ValueError):  # ValueError: the file is empty
        return True


def warn_about_ignored_folders(folder: ModelLocation) -> None:
    """Log the folders without a model, and the folders whose names are not versions."""
    if isinstance(folder, SingleModel):
        return
    try:
        names = model_names(folder)
    except ModelRepositoryError as error:
        log.warning("the folder of models cannot be listed: %s", error)
        return
    for name in names:
        versions = []
        with contextlib.suppress(OSError):
            versions = [version for version in sorted((folder / name).iterdir()) if may_exist(version / MODEL_FILE)]
        for version in versions:
            if not MODEL_VERSION.fullmatch(version.name):
                log.warning("%s is ignored: a version is a whole number from 1, without leading zeros", version)
        if not versions:
            log.warning("%s is ignored: it has no <version>/%s", folder / name, MODEL_FILE)


def check_card_stays(found: ModelFile, serving: Iterable[ModelFile]) -> None:
    """Raise ModelRepositoryError if a new version has no card, so that requests with images would start to fail."""
    serves_images = any(file.has_card for file in serving if file.name == found.name)
    if serves_images and not found.has_card:
        raise ModelRepositoryError(
            "it has no model card, but the served version has one, so requests with images would fail; "
            "export it with a card, give it another name, or unload the model first"
        )
