"""The served models of this process, by name and version.

At the start, all models are loaded, checked and warmed up before any of them serves. A broken model stops the start, so
that the operator notices it. A reload replaces the whole set at once, between two requests; queued jobs keep the model
that they were submitted to.
"""

import contextlib
import hashlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeAlias

from service.engine.engine import EngineError, EngineOptions
from service.errors import BadRequest, NotFound, NotReady
from service.images.limits import DEFAULT_LIMITS, ImageLimits
from service.inference.classifier import Classifier, load_classifier
from service.inference.model_checks import ModelCheckFailed
from service.inference.tensor_model import TensorModel, load_graph_model
from service.model_files.card import METADATA_KEY, BadCard
from service.model_files.local_copies import find_copy, lock, prune, store
from service.model_files.permissions import why_unreadable
from service.model_files.repository import ModelFile, ModelRepositoryError, VersionState
from service.model_files.signature import BadModelKeys, SignatureRefused, check_signature

log = logging.getLogger(__name__)

_PLAIN_HOST = EngineOptions()
_MOST_NAMED = 16  # in one message

ServedModel: TypeAlias = Classifier | TensorModel


class Registry:
    """Loaded models by name and version, and the default model. Empty until `serve` is called."""

    def __init__(self) -> None:
        self._models: dict[str, dict[str, ServedModel]] = {}  # versions in ascending order
        self._default: str | None = None
        self.states: tuple[VersionState, ...] = ()  # of every version that serves, was rejected or was unloaded

    def serve(self, models: Iterable[ServedModel], default: str, states: Iterable[VersionState] | None = None) -> None:
        """Replace the served models; `default` is a name. Without `states`, all of these models are ready."""
        ordered = sorted(models, key=lambda model: (model.info.name, int(model.info.version)))
        self._models = {}
        for model in ordered:
            self._models.setdefault(model.info.name, {})[model.info.version] = model
        self._default = default
        ready = (VersionState(model.info.name, model.info.version, "READY") for model in ordered)
        self.states = tuple(ready if states is None else states)

    def __iter__(self) -> Iterator[ServedModel]:
        return (model for versions in self._models.values() for model in versions.values())

    def versions_of(self, name: str) -> list[ServedModel]:
        """Return the served versions of a model, in ascending order."""
        return list(self._models.get(name, {}).values())

    def is_default(self, model: ServedModel) -> bool:
        """Return whether this is the model of requests that name none."""
        return model.info.name == self._default and model is next(reversed(self._models[model.info.name].values()))

    def serves(self, version: VersionState) -> bool:
        """Return whether a version serves now, also while a newer file of the same version is loading."""
        return version.version in self._models.get(version.name, {})

    def states_of(self, name: str, version: str | None = None) -> list[VersionState]:
        """Return the states of a model's versions, or of one version. Raises NotFound, NotReady."""
        self._check_loaded()
        states = [state for state in self.states if state.name == name and version in (None, state.version)]
        if not states:
            raise self._not_found(name)
        return states

    def default(self) -> ServedModel:
        """Return the default model, with or without a card. Raises NotFound, NotReady."""
        return self.find_any(self._check_loaded())

    def find(self, model: str | None) -> Classifier:
        """Return the model `name` or `name:version`, or the default model for None.

        Raises NotFound, NotReady, and BadRequest if the model has no card and so does not accept images.
        """
        if model is None:
            found = self.default()
        else:
            name, colon, version = model.partition(":")
            found = self.find_any(name, version if colon else None)
        if not isinstance(found, Classifier):
            raise BadRequest(
                "This model has no model card and accepts only tensors, not images: "
                f"use POST /v2/models/{found.info.name}/infer.",
                code="no_model_card",
            )
        return found

    def find_any(self, name: str, version: str | None = None) -> ServedModel:
        """Return a model with or without a card: this version, or the highest. Raises NotFound, NotReady."""
        self._check_loaded()
        versions = self._models.get(name, {})
        found = next(reversed(versions.values()), None) if version is None else versions.get(version)
        if found is not None:
            return found
        if any(state.name == name and version in (None, state.version) for state in self.states):
            raise NotFound("This model does not serve now; see GET /models for the reason.", code="model_not_found")
        raise self._not_found(name)

    def _not_found(self, name: str) -> NotFound:
        """Return the error of an unknown model, or of an unknown version of `name`, which lists the existing ones."""
        kind, names = (f"version of {name}", self._models[name]) if name in self._models else ("model", self._models)
        return NotFound(
            f"There is no such {kind}; choose one of: {', '.join(islice(names, _MOST_NAMED))}.", code="model_not_found"
        )

    def _check_loaded(self) -> str:
        """Return the default model's name. Raises NotReady."""
        if self._default is None:
            raise NotReady("The server is still loading its models; try again soon.", retry_after_s=1)
        return self._default


def load_models(
    files: Iterable[ModelFile], load: Callable[[ModelFile], ServedModel], warn_after_s: float
) -> list[ServedModel]:
    """Load all models in order, and log each that takes longer than `warn_after_s`. Raises ModelRepositoryError."""
    return [_load_watched(file, load, warn_after_s) for file in files]


def _load_watched(file: ModelFile, load: Callable[[ModelFile], ServedModel], warn_after_s: float) -> ServedModel:
    text = "%s has been loading for %g s; if it does not finish, stop the server and remove the file"
    alarm = threading.Timer(warn_after_s, log.warning, (text, file.path, warn_after_s))
    alarm.daemon = True
    alarm.start()
    try:
        return load(file)
    finally:
        alarm.cancel()


def load(
    file: ModelFile,
    *,
    providers: str,
    max_batch: int | None,
    host: EngineOptions = _PLAIN_HOST,
    limits: ImageLimits = DEFAULT_LIMITS,
    content: bytes | None = None,
    model_keys: Path | None = None,
) -> ServedModel:
    """Load one model, as a Classifier if it has a card, else as a TensorModel. Raises ModelRepositoryError.

    `limits` apply to its images. `content` is the content of the file, if it has already been read.
    """
    model = read_model(file, host.cache, model_keys) if content is None else content
    load_model = partial(load_classifier, limits=limits) if has_card(model) else load_graph_model
    try:
        return load_model(file.name, file.version, model, providers=providers, max_batch=max_batch, host=host)
    except (EngineError, BadCard, ModelCheckFailed) as error:
        raise ModelRepositoryError(str(error), path=file.path) from error


def has_card(model: bytes) -> bool:
    """Return whether a file contains the metadata key of a model card; such a file must have a valid card."""
    return METADATA_KEY.encode() in model


def read_model(file: ModelFile, cache: Path | None = None, model_keys: Path | None = None) -> bytes:
    """Return the content of a model file with its accepted digest: the copy in `cache`, else the file itself.

    A copy stays valid if the repository is unavailable or the file is being overwritten. A file without an accepted
    digest must be signed by one of `model_keys`, if they are given.
    Raises ModelRepositoryError if the file cannot be read, is not signed, or has changed and has no copy.
    """
    copy = None if cache is None or file.sha256 is None else find_copy(cache, file.sha256)
    if copy is not None:
        return copy
    try:
        content = file.path.read_bytes()
    except OSError as error:
        raise ModelRepositoryError(
            f"the file cannot be read{why_unreadable(file.path, error)}", path=file.path
        ) from None
    if file.sha256 is None and model_keys is not None:
        _check_signature(file, content, model_keys)
    if file.sha256 in (None, hashlib.sha256(content).hexdigest()):
        return content
    raise ModelRepositoryError("the file has changed since it was accepted; load it again", path=file.path)


def _check_signature(file: ModelFile, content: bytes, model_keys: Path) -> None:
    try:
        check_signature(file.path, content, model_keys)
    except (SignatureRefused, BadModelKeys) as error:
        raise ModelRepositoryError(str(error), path=file.path) from None


def store_copies_of(files: Iterable[ModelFile], cache: Path) -> None:
    """Copy the served files that are still unchanged into the cache, and remove copies of files that do not serve."""
    digests = {file.sha256: file for file in files if file.sha256 is not None}
    for sha256, file in digests.items():
        with contextlib.suppress(ModelRepositoryError):
            store(cache, sha256, read_model(file))
    lock(cache, digests)
    prune(cache)
