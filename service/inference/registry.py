"""The models that serve in this process, by name and version.

At the start everything is loaded, checked and warmed before anything serves. A model that is broken stops the start: an
operator who put it there wants to know. Later the whole set is replaced at once, between two requests; what was in a
queue keeps the model that it was meant for.
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
from service.model_files.local_copies import find_kept, forget_the_rest, hold, keep
from service.model_files.permissions import why_unreadable
from service.model_files.repository import ModelFile, ModelRepositoryError, VersionState

log = logging.getLogger(__name__)

_PLAIN_HOST = EngineOptions()
_MOST_NAMED = 16  # in one message

ServedModel: TypeAlias = Classifier | TensorModel


class Registry:
    """Loaded models by name and version, and the one that answers when none is named. Empty until `serve` is called."""

    def __init__(self) -> None:
        self._models: dict[str, dict[str, ServedModel]] = {}  # versions in order, the highest last
        self._default: str | None = None
        self.states: tuple[VersionState, ...] = ()  # of every version that serves, was refused or was unloaded

    def serve(self, models: Iterable[ServedModel], default: str, states: Iterable[VersionState] | None = None) -> None:
        """Answer with these models from now on. Without `states` all of them are ready, and there are no others."""
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
        """Return every version of a model that serves, the highest last."""
        return list(self._models.get(name, {}).values())

    def is_default(self, model: ServedModel) -> bool:
        """Whether this model answers when none is named."""
        return model.info.name == self._default and model is next(reversed(self._models[model.info.name].values()))

    def serves(self, version: VersionState) -> bool:
        """Whether this version answers now, which it may do while another file of its number is tried."""
        return version.version in self._models.get(version.name, {})

    def states_of(self, name: str, version: str | None = None) -> list[VersionState]:
        """Return how the versions of a model are doing, or this one. Raises NotFound, NotReady."""
        self._check_loaded()
        states = [state for state in self.states if state.name == name and version in (None, state.version)]
        if not states:
            raise self._not_found(name)
        return states

    def default(self) -> ServedModel:
        """Return the model that answers when none is named, with or without a card. Raises NotFound, NotReady."""
        return self.find_any(self._check_loaded())

    def find(self, model: str | None) -> Classifier:
        """Return the model `name` or `name:version`, or the default one for None, if it knows images.

        Raises NotFound, NotReady, BadRequest if the model has no card.
        """
        if model is None:
            found = self.default()
        else:
            name, colon, version = model.partition(":")
            found = self.find_any(name, version if colon else None)
        if not isinstance(found, Classifier):
            raise BadRequest(
                "This model has no card that says how to prepare images and what its labels are; it takes tensors: "
                f"POST /v2/models/{found.info.name}/infer.",
                code="no_model_card",
            )
        return found

    def find_any(self, name: str, version: str | None = None) -> ServedModel:
        """Return a model with or without a card: this version, or the highest there is. Raises NotFound, NotReady."""
        self._check_loaded()
        versions = self._models.get(name, {})
        found = next(reversed(versions.values()), None) if version is None else versions.get(version)
        if found is not None:
            return found
        if any(state.name == name and version in (None, state.version) for state in self.states):
            raise NotFound("This model does not serve now; GET /models says why.", code="model_not_found")
        raise self._not_found(name)

    def _not_found(self, name: str) -> NotFound:
        """Return the refusal of a model that does not exist, or of a version of `name`; it names what exists."""
        kind, names = (f"version of {name}", self._models[name]) if name in self._models else ("model", self._models)
        return NotFound(
            f"There is no such {kind}; choose one of: {', '.join(islice(names, _MOST_NAMED))}.", code="model_not_found"
        )

    def _check_loaded(self) -> str:
        """Return the default's name."""
        if self._default is None:
            raise NotReady("The server is still loading its models; try again soon.", retry_after_s=1)
        return self._default


def load_models(
    files: Iterable[ModelFile], load: Callable[[ModelFile], ServedModel], warn_after_s: float
) -> list[ServedModel]:
    """Load every model, and log which one takes long. Raises ModelRepositoryError at the first flaw."""
    return [_load_watched(file, load, warn_after_s) for file in files]


def _load_watched(file: ModelFile, load: Callable[[ModelFile], ServedModel], warn_after_s: float) -> ServedModel:
    text = "%s has been loading for %g s; if it does not end, stop the server and take the file away"
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
) -> ServedModel:
    """Load one model: with its card, or as what its graph says. Raises ModelRepositoryError.

    `limits` are those of the images that it is asked about; `content` is what the file holds, if it has been read
    already.
    """
    model = read_model(file, host.cache) if content is None else content
    load_model = partial(load_classifier, limits=limits) if has_card(model) else load_graph_model
    try:
        return load_model(file.name, file.version, model, providers=providers, max_batch=max_batch, host=host)
    except (EngineError, BadCard, ModelCheckFailed) as error:
        raise ModelRepositoryError(str(error), path=file.path) from error


def has_card(model: bytes) -> bool:
    """Whether a file says that it has a model card, and so is not loaded without one."""
    return METADATA_KEY.encode() in model


def read_model(file: ModelFile, cache: Path | None = None) -> bytes:
    """Return the content of a model file: what was accepted, from the copies in `cache` or else from the folder.

    The folder may be away, or somebody may be writing to it: a copy depends on neither.
    Raises ModelRepositoryError if it cannot be read, or has changed and was not kept.
    """
    copy = None if cache is None or file.sha256 is None else find_kept(cache, file.sha256)
    if copy is not None:
        return copy
    try:
        content = file.path.read_bytes()
    except OSError as error:
        raise ModelRepositoryError(
            f"the file cannot be read{why_unreadable(file.path, error)}", path=file.path
        ) from None
    if file.sha256 in (None, hashlib.sha256(content).hexdigest()):
        return content
    raise ModelRepositoryError("the file has changed since it was accepted; load it again", path=file.path)


def keep_models(files: Iterable[ModelFile], cache: Path) -> None:
    """Copy what serves into the cache, as far as the folder still holds it, and drop copies that nobody serves."""
    digests = {file.sha256: file for file in files if file.sha256 is not None}
    for sha256, file in digests.items():
        with contextlib.suppress(ModelRepositoryError):
            keep(cache, sha256, read_model(file))
    hold(cache, digests)
    forget_the_rest(cache)
