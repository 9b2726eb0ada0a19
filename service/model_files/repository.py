"""The folder of models on the disk: `<folder>/<name>/<version>/model.onnx`.

Files are listed and their locations checked, without opening them. `serving_set.py` chooses the versions to serve.
"""

import errno
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from service.model_files.permissions import why_unreadable
from service.model_files.single_model import SingleModel

MODEL_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MODEL_VERSION = re.compile(r"[1-9][0-9]{0,17}")  # often seconds since 1970
MODEL_FILE = "model.onnx"  # the name that Triton expects as well
RULE_OF_NAMES = (
    "a model's name has 1 to 64 lower-case letters, digits, dots, dashes and underscores, "
    "and begins with a letter or digit"
)
_IN_THE_IMAGE = Path("/models")
ALL = 2**62  # the number of versions that means all of them
ModelLocation: TypeAlias = Path | SingleModel  # a folder of models, or one model


class ModelRepositoryError(Exception):
    """A model, or the folder of models, cannot be served. The message is one line for an operator."""

    def __init__(self, reason: str, *, path: Path | None = None) -> None:
        super().__init__(reason if path is None else f"{path}: {reason}")
        self.reason = reason  # for clients as well: it contains no path


@dataclass(frozen=True, slots=True)
class ModelFile:
    """The location of one version of a model, and the digest that was accepted."""

    name: str
    version: str
    path: Path
    sha256: str | None = None  # None: not checked yet
    has_card: bool | None = None  # a model card, which image requests need; None: not read yet
    max_batch: int | None = field(default=None, compare=False)  # on which all processes agree; None: as measured

    @property
    def key(self) -> tuple[str, str]:
        """The name and version that identify it in a request."""
        return self.name, self.version


@dataclass(frozen=True, slots=True)
class VersionState:
    """The state of one version of a model, in Triton's terms."""

    name: str
    version: str
    state: Literal["LOADING", "READY", "UNAVAILABLE"]
    reason: str = ""  # one line, without paths


@dataclass(frozen=True, slots=True)
class ServingSet:
    """The served models of all processes, and the state of each version: served, rejected or unloaded."""

    default: str
    files: tuple[ModelFile, ...]
    states: tuple[VersionState, ...] = field(default=())
    why_default: str = field(default="", compare=False)  # for the log of the start


def model_names(folder: ModelLocation) -> list[str]:
    """Return the names of possible models, in order. Raises ModelRepositoryError if the folder cannot be read."""
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
            return f"there is no folder of models at {folder}; {folder_hint(folder, 'one')}"
        case errno.ENOTDIR:
            return f"{folder} is not a folder of models: it is a file, or below one; {folder_hint(folder)}"
        case errno.EACCES | errno.EPERM:
            return f"the folder of models {folder} cannot be read{why_unreadable(folder, error)}"
        case other:
            name = errno.errorcode.get(other or 0, "unknown error")
            return f"the folder of models {folder} cannot be read ({name}); check the disk or {folder_hint(folder)}"


def folder_hint(folder: Path, which: str = "another folder") -> str:
    """Return advice on choosing another folder; the container image's own folder needs a mount."""
    if folder == _IN_THE_IMAGE:
        return f"mount a folder of models there, as in docker run -v $PWD/models:{folder}:ro"
    return f"name {which} with --models"


def may_exist(path: Path) -> bool:
    """Return whether a path exists, or may exist where this process has no access."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def versions_of(folder: ModelLocation, name: str, latest: int) -> list[ModelFile]:
    """Return the highest versions of one model in ascending order; none without a file. Raises ModelRepositoryError.

    `check_location` decides whether each may be loaded.
    """
    if isinstance(folder, SingleModel):
        if name != folder.name:
            return []
        if folder.file is not None:
            return [ModelFile(name, folder.version or "1", folder.file)] if may_exist(folder.file) else []
    entry = folder.path if isinstance(folder, SingleModel) else folder / name
    try:
        paths = [version / MODEL_FILE for version in entry.iterdir() if MODEL_VERSION.fullmatch(version.name)]
        files = [path for path in paths if may_exist(path)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise ModelRepositoryError(f"the folder cannot be read{why_unreadable(entry, error)}", path=entry) from None
    if files and not is_name(name):
        raise ModelRepositoryError(RULE_OF_NAMES, path=entry)
    highest = sorted(files, key=lambda path: int(path.parent.name))[-latest:]
    return [ModelFile(name, path.parent.name, path) for path in highest]


def check_location(folder: ModelLocation, file: ModelFile) -> None:
    """Raise ModelRepositoryError unless the file is a regular file inside the folder of models."""
    path = Path(os.path.realpath(file.path))
    root = folder.root if isinstance(folder, SingleModel) else os.path.realpath(folder)
    if not path.is_relative_to(root):
        raise ModelRepositoryError(
            "the file is a link out of the folder of models; put the file itself there", path=file.path
        )
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        raise ModelRepositoryError("the file does not exist, or is a broken link", path=file.path) from None
    except OSError as error:
        raise ModelRepositoryError(
            f"the file cannot be read{why_unreadable(file.path, error)}", path=file.path
        ) from None
    if not is_file:
        raise ModelRepositoryError("it is not a file", path=file.path)


def is_name(text: str) -> bool:
    """Return whether a model may have this name."""
    return MODEL_NAME.fullmatch(text) is not None
