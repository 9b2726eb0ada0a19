"""A single model as the value of `--models`: a file, a folder with `model.onnx`, or a folder of versions.

Its name is made from that of the file or folder, unless `--model-name` gives another.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_LONGEST_NAME = 64
_NO_NAME = "model"
_SUFFIX = ".onnx"


@dataclass(frozen=True, slots=True)
class SingleModel:
    """The location of one model: `file`, or `<folder>/<version>/model.onnx`."""

    path: Path  # as given by the operator
    name: str
    version: str | None = None  # of the file; None: the folder has versions
    file: Path | None = None

    def __str__(self) -> str:
        """Return the path, as messages name it."""
        return str(self.path)

    @property
    def root(self) -> str:
        """The real folder in which files of the model must be; a file that the operator names may be a link."""
        if self.file is None:
            return os.path.realpath(self.path)
        return os.path.dirname(os.path.realpath(self.path)) if self.path == self.file else os.path.realpath(self.path)


def find_single_model(path: Path, file_name: str, is_version: Callable[[str], object]) -> SingleModel | None:
    """Return the single model at a path; None for a folder of models, or an unreadable path.

    A folder with any `<name>/<version>/<file_name>` is a folder of models, whatever else it has.
    """
    whole = Path(os.path.abspath(path))
    try:
        if whole.suffix.lower() == _SUFFIX and whole.is_file():
            is_usual = whole.name == file_name
            return _one_file(path, path, whole.parent if is_usual else whole.with_suffix(""), is_version)
        folders = [Path(entry.path) for entry in os.scandir(whole) if entry.is_dir()]
        if any(is_version(inner.name) and (inner / file_name).exists() for one in folders for inner in one.iterdir()):
            return None
        if (whole / file_name).is_file():
            return _one_file(path, path / file_name, whole, is_version)
        if any(is_version(one.name) and (one / file_name).exists() for one in folders):
            return SingleModel(path, as_name(whole.name))
    except OSError:
        pass
    return None


def _one_file(path: Path, file: Path, named: Path, is_version: Callable[[str], object]) -> SingleModel:
    """Return a file with the name and version that follow from its path."""
    if named.name == file.stem or not is_version(named.name):
        return SingleModel(path, as_name(named.name), "1", file)
    return SingleModel(path, as_name(named.parent.name), named.name, file)


def as_name(text: str) -> str:
    """Return a valid model name that is similar to a text."""
    allowed = re.sub(r"[^a-z0-9._-]+", "-", text.lower())
    return allowed.lstrip("._-")[:_LONGEST_NAME].rstrip("-") or _NO_NAME
