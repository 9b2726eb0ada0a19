"""The folder of models as it lies on the disk: `<folder>/<name>/<version>/model.onnx`, and what shall be served of it.

Of each name the highest version serves, or the highest few. The supervisor reads the folder, and leaves the models to
others: a file is opened only to see whether it has a model card, where several models could be the default.
"""

import contextlib
import errno
import logging
import mmap
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

from service.model_files.default_model import DefaultModel, Undecided, default_of
from service.model_files.installed_models import installed_models
from service.model_files.permissions import why_unreadable
from service.model_files.single_model import SingleModel, find_single_model

log = logging.getLogger(__name__)

MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MODEL_VERSION = re.compile(r"[1-9][0-9]{0,17}")  # seconds since 1970 are usual, too
DEFAULT_FOLDER = Path("models")
MODEL_FILE = "model.onnx"  # the name that Triton expects, too
_RULE_OF_NAMES = (
    "a model's name has 1 to 64 lower-case letters, digits, dots, dashes and underscores, "
    "and begins with a letter or digit"
)
_CARD = b"model_card"  # as the metadata of a file name it
_IN_THE_IMAGE = Path("/models")
ALL = 2**62  # as a number of versions
ModelLocation: TypeAlias = Path | SingleModel  # a folder of models, or one model


class ModelRepositoryError(Exception):
    """A model, or the folder of models, cannot be served. The message is one line for an operator."""

    def __init__(self, reason: str, *, path: Path | None = None) -> None:
        super().__init__(reason if path is None else f"{path}: {reason}")
        self.reason = reason  # for clients, too: it names no path


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Where one version of a model lies, and which bytes were accepted there."""

    name: str
    version: str
    path: Path
    sha256: str | None = None  # None: whatever lies there
    has_card: bool | None = None  # a model card, which image requests need; None: not read yet
    max_batch: int | None = field(default=None, compare=False)  # on which all processes agree; None: as measured

    @property
    def key(self) -> tuple[str, str]:
        """The name and version that identify it in a request."""
        return self.name, self.version


@dataclass(frozen=True, slots=True)
class VersionState:
    """How one version of a model is doing, in Triton's words."""

    name: str
    version: str
    state: Literal["LOADING", "READY", "UNAVAILABLE"]
    reason: str = ""  # one line, without paths


@dataclass(frozen=True, slots=True)
class ServingSet:
    """What serves, in every process; and how each version is doing that serves, was refused or was unloaded."""

    default: str
    files: tuple[ModelFile, ...]
    states: tuple[VersionState, ...] = field(default=())
    why_default: str = field(default="", compare=False)  # in a few words, for the log of the start


def locate_models(path: Path, model_name: str | None = None) -> ModelLocation:
    """Return a folder of models, or the single model that a path names, with this name if one is given.

    Where there is no folder at the default path, the model of an installed wheel takes its place. Raises
    ModelRepositoryError if the name is none, or the path is no single model.
    """
    if path == DEFAULT_FOLDER and not path.exists():
        path = installed_models() or path
    single = find_single_model(path, MODEL_FILE, MODEL_VERSION.fullmatch)
    if model_name is None:
        return path if single is None else single
    if single is None:
        raise ModelRepositoryError(
            f"--model-name {model_name} needs a single model, and {path} is none; point --models at a file, or a "
            f"folder with {MODEL_FILE} or <version>/{MODEL_FILE}"
        )
    if not is_name(model_name):
        raise ModelRepositoryError(f"--model-name {model_name!r} cannot be used: {_RULE_OF_NAMES}")
    return replace(single, name=model_name)


def read_lineup(folder: ModelLocation, *, default_model: str | None, latest: int = 1) -> ServingSet:
    """Return what shall serve at the start, and what was refused for where it lies. Raises ModelRepositoryError."""
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
    """Return the highest versions of each model in the folder that may be loaded from where they lie, by name.

    Raises ModelRepositoryError if there is none, or a model has none.
    """
    return [file for file, refusal in _find(folder, latest) if refusal is None]


def _find(folder: ModelLocation, latest: int) -> list[tuple[ModelFile, ModelRepositoryError | None]]:
    found = [version for name in model_names(folder) for version in _placed_versions_of(folder, name, latest)]
    if not found:
        if isinstance(folder, SingleModel):
            raise ModelRepositoryError(f"the model at {folder} is gone; name another with --models")
        raise ModelRepositoryError(
            f"there is no model in {folder}: put one at <name>/<version>/{MODEL_FILE}, as export-onnx does, or "
            f"{_another_folder(folder)}"
        )
    return found


def _placed_versions_of(
    folder: ModelLocation, name: str, latest: int
) -> list[tuple[ModelFile, ModelRepositoryError | None]]:
    """Return a model's highest versions, and refused ones above them. Raises ModelRepositoryError if none is good."""
    found: list[tuple[ModelFile, ModelRepositoryError | None]] = []
    wanted = latest
    for file in reversed(versions_of(folder, name, ALL)):
        refusal = _refusal_of_place(folder, file)
        found.insert(0, (file, refusal))
        wanted -= refusal is None
        if not wanted:
            break
    if found and wanted == latest:
        raise found[-1][1] or AssertionError("a version was refused without a reason")
    return found


def _refusal_of_place(folder: ModelLocation, file: ModelFile) -> ModelRepositoryError | None:
    try:
        check_location(folder, file)
    except ModelRepositoryError as error:
        return error
    return None


def choose_model(files: list[ModelFile], wanted: str | None, *, flag: str) -> DefaultModel:
    """Return the default model: `wanted` if given, else by the rule of `default_model`.

    A model without a card cannot classify images, so it is the default only where no other has one.
    Raises ModelRepositoryError, which names the flag to choose with, if nothing decides it.
    """
    names = list(dict.fromkeys(file.name for file in files))
    if wanted is not None:
        if wanted not in names:
            raise ModelRepositoryError(f"there is no model {wanted!r} for {flag}; there are: {', '.join(names)}")
        return DefaultModel(wanted, f"{flag} names it")
    if len(names) > 1:
        names = list(dict.fromkeys(file.name for file in files if _may_have_card(file.path))) or names
    try:
        return default_of(names)
    except Undecided as error:
        raise ModelRepositoryError(
            f"there are several models of your own; choose one with {flag}: {', '.join(error.names)}"
        ) from None


def _may_have_card(path: Path) -> bool:
    """Whether a file names a model card, which stands near its end; also true of a file that cannot be read here."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.rfind(_CARD) >= 0
    except (OSError, ValueError):  # ValueError: the file is empty
        return True


def model_names(folder: ModelLocation) -> list[str]:
    """Return the names of what may be models, in order. Raises ModelRepositoryError if the folder cannot be read."""
    if isinstance(folder, SingleModel):
        return [folder.name]
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise ModelRepositoryError(_why_unreadable(folder, error)) from None


def _why_unreadable(folder: Path, error: OSError) -> str:
    match error.errno:
        case errno.ENOENT:
            return f"there is no folder of models at {folder}; {_another_folder(folder, 'one')}"
        case errno.ENOTDIR:
            return f"{folder} is not a folder of models, but a file, or below one; {_another_folder(folder)}"
        case errno.EACCES | errno.EPERM:
            return f"the folder of models {folder} cannot be read{why_unreadable(folder, error)}"
        case other:
            name = errno.errorcode.get(other or 0, "unknown error")
            return f"the folder of models {folder} cannot be read ({name}); check the disk or {_another_folder(folder)}"


def _another_folder(folder: Path, which: str = "another folder") -> str:
    """How to choose another folder; the image's own path is known by its name."""
    if folder == _IN_THE_IMAGE:
        return f"mount a folder of models there, as in docker run -v $PWD/models:{folder}:ro"
    return f"name {which} with --models"


def warn_of_what_is_left_out(folder: ModelLocation) -> None:
    """Log which folders hold no model, and which are no versions."""
    if isinstance(folder, SingleModel):
        return
    try:
        names = model_names(folder)
    except ModelRepositoryError as error:
        log.warning("what the folder of models holds is not known: %s", error)
        return
    for name in names:
        versions = []
        with contextlib.suppress(OSError):
            versions = [version for version in sorted((folder / name).iterdir()) if _is_there(version / MODEL_FILE)]
        for version in versions:
            if not MODEL_VERSION.fullmatch(version.name):
                log.warning("%s is left out: a version is a whole number from 1, without zeros before it", version)
        if not versions:
            log.warning("%s holds no <version>/%s, so it is left out", folder / name, MODEL_FILE)


def _is_there(path: Path) -> bool:
    """Whether something has this name, whatever it is, or may have it where we cannot look."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def versions_of(folder: ModelLocation, name: str, latest: int) -> list[ModelFile]:
    """Return the highest versions of one model, the highest last; none without a file. Raises ModelRepositoryError.

    Whether each may be loaded from where it lies, `check_location` says.
    """
    if isinstance(folder, SingleModel):
        if name != folder.name:
            return []
        if folder.file is not None:
            return [ModelFile(name, folder.version or "1", folder.file)] if _is_there(folder.file) else []
    entry = folder.path if isinstance(folder, SingleModel) else folder / name
    try:
        paths = [version / MODEL_FILE for version in entry.iterdir() if MODEL_VERSION.fullmatch(version.name)]
        files = [path for path in paths if _is_there(path)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ModelRepositoryError(f"the folder cannot be read{why_unreadable(entry, error)}", path=entry) from None
    if files and not is_name(name):
        raise ModelRepositoryError(_RULE_OF_NAMES, path=entry)
    highest = sorted(files, key=lambda path: int(path.parent.name))[-latest:]
    return [ModelFile(name, path.parent.name, path) for path in highest]


def check_location(folder: ModelLocation, file: ModelFile) -> None:
    """Raise ModelRepositoryError unless a file of our own lies there."""
    path = Path(os.path.realpath(file.path))
    root = folder.root if isinstance(folder, SingleModel) else os.path.realpath(folder)
    if not path.is_relative_to(root):
        raise ModelRepositoryError(
            "the file is a link out of the folder of models; put the file itself there", path=file.path
        )
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        raise ModelRepositoryError("the file is not there, or a link to nothing", path=file.path) from None
    except OSError as error:
        raise ModelRepositoryError(
            f"the file cannot be read{why_unreadable(file.path, error)}", path=file.path
        ) from None
    if not is_file:
        raise ModelRepositoryError("it is not a file", path=file.path)


def is_name(text: str) -> bool:
    """Return whether a model may have this name."""
    return MODEL_NAME.fullmatch(text) is not None


def check_card_stays(found: ModelFile, serving: Iterable[ModelFile]) -> None:
    """Raise ModelRepositoryError if images that are answered now would no longer be, with this version of a model."""
    serves_images = any(file.has_card for file in serving if file.name == found.name)
    if serves_images and not found.has_card:
        raise ModelRepositoryError(
            "it has no model card, and the version that serves has one, so images would no longer be answered; "
            "export it with a card, give it another name, or unload the model first"
        )
