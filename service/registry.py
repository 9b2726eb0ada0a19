"""The models that serve: `<folder>/<name>/<version>/model.onnx`, of each name the highest version.

Everything is loaded, checked and warmed before anything serves. A model that is broken stops the start: an operator
who put it there wants to know.
"""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from service.classifier import BadModel, Classifier, load_classifier
from service.engine import EngineError, Host
from service.errors import BadRequest, NotFound, NotReady
from service.graph_model import GraphModel, load_graph_model
from service.model_card import METADATA_KEY, BadCard

log = logging.getLogger(__name__)

SHIPPED_MODEL = "cifar10-resnet20"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_FILE = "model.onnx"
_PLAIN_HOST = Host()

Served: TypeAlias = Classifier | GraphModel


class RegistryError(Exception):
    """The folder of models cannot be served. The message is one line for an operator."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Where one model lies."""

    name: str
    version: str
    path: Path


class Registry:
    """Loaded models by name, and the one that answers when none is named. Empty until `serve` is called."""

    def __init__(self) -> None:
        self._models: dict[str, Served] = {}
        self._default: str | None = None

    def serve(self, models: Iterable[Served], default: str) -> None:
        """Answer with these models from now on."""
        self._models = {model.info.name: model for model in models}
        self._default = self._models[default].info.name

    def __iter__(self) -> Iterator[Served]:
        return iter(self._models.values())

    def is_default(self, model: Served) -> bool:
        """Whether this model answers when none is named."""
        return model.info.name == self._default

    def find(self, model: str | None) -> Classifier:
        """Return the model `name` or `name:version`, or the default one for None, if it knows pictures.

        Raises NotFound, NotReady, BadRequest if the model has no card.
        """
        name, colon, version = (self._check_loaded() if model is None else model).partition(":")
        found = self.find_any(name, version if colon else None)
        if not isinstance(found, Classifier):
            raise BadRequest(
                "This model has no card that says how to prepare pictures and what its labels are; it takes tensors: "
                f"POST /v2/models/{found.info.name}/infer.",
                code="no_model_card",
            )
        return found

    def find_any(self, name: str, version: str | None = None) -> Served:
        """Return a model with or without a card. Raises NotFound, NotReady."""
        self._check_loaded()
        found = self._models.get(name)
        if found is None or version not in (None, found.info.version):
            raise NotFound("There is no such model; GET /models names those there are.", code="model_not_found")
        return found

    def _check_loaded(self) -> str:
        """Return the default's name."""
        if self._default is None:
            raise NotReady("The server is still loading its models; try again soon.", retry_after_s=1)
        return self._default


def load_models(
    folder: Path,
    *,
    default_model: str | None,
    providers: str,
    max_batch: int | None,
    host: Host = _PLAIN_HOST,
) -> tuple[list[Served], str]:
    """Load every model in the folder; return them and the default's name. Raises RegistryError at the first flaw."""
    files = find_models(folder)
    default = choose_model(files, default_model, flag="--default-model")
    models = [load(file, providers=providers, max_batch=max_batch, host=host) for file in files]
    for name in sorted({entry.name for entry in _folders(folder)} - {file.name for file in files}):
        log.warning("%s holds no <version>/%s, so it is left out", folder / name, _FILE)
    return models, default


def load(file: ModelFile, *, providers: str, max_batch: int | None, host: Host = _PLAIN_HOST) -> Served:
    """Load one model: with its card, or as what its graph says. Raises RegistryError."""
    try:
        model = file.path.read_bytes()
        load_model = load_classifier if METADATA_KEY.encode() in model else load_graph_model
        return load_model(file.name, file.version, model, providers=providers, max_batch=max_batch, host=host)
    except OSError:
        raise RegistryError(f"{file.path} cannot be read; check its permissions") from None
    except (EngineError, BadCard, BadModel) as error:
        raise RegistryError(f"{file.path}: {error}") from error


def find_models(folder: Path) -> list[ModelFile]:
    """Return the highest version of each model in the folder, by name. Raises RegistryError if there is none."""
    files = [file for entry in _folders(folder) if (file := _highest_version(folder, entry)) is not None]
    if not files:
        raise RegistryError(
            f"there is no model in {folder}: put one at <name>/<version>/{_FILE}, as export-onnx does, or name another "
            "folder with --models"
        )
    return files


def choose_model(files: list[ModelFile], wanted: str | None, *, flag: str) -> str:
    """Return the name of the model that answers: the one wanted, else the only one, else the shipped one.

    Raises RegistryError, which names the flag to choose with, if nothing decides it.
    """
    names = [file.name for file in files]
    if wanted is not None:
        if wanted not in names:
            raise RegistryError(f"there is no model {wanted!r} for {flag}; there are: {', '.join(names)}")
        return wanted
    if len(names) == 1:
        return names[0]
    if SHIPPED_MODEL in names:
        return SHIPPED_MODEL
    raise RegistryError(f"there are several models; choose one with {flag}: {', '.join(names)}")


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        raise RegistryError(f"there is no folder of models at {folder}; name one with --models") from None


def _highest_version(folder: Path, entry: Path) -> ModelFile | None:
    try:
        paths = [version / _FILE for version in entry.iterdir() if _VERSION.fullmatch(version.name)]
        files = [path for path in paths if path.is_file()]
    except OSError:
        raise RegistryError(f"{entry} cannot be read; check its permissions") from None
    if not files:
        return None
    if not _NAME.fullmatch(entry.name):
        raise RegistryError(
            f"{entry}: a model's name has 1 to 64 lower-case letters, digits, dots, dashes and underscores, "
            "and begins with a letter or digit"
        )
    path = max(files, key=lambda path: int(path.parent.name))
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise RegistryError(f"{path} is a link out of the folder of models; put the file itself there")
    return ModelFile(entry.name, path.parent.name, path)
