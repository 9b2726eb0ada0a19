"""A worker's part in a change of models: load new ones beside those that serve, then switch to them at once.

A queued image keeps the model that it was submitted to. A replaced model is freed with its last image.
"""

import asyncio
import logging
import threading
import weakref
from collections.abc import Iterable
from dataclasses import replace

from service.batching.jobs import call_on_loop
from service.inference.registry import ServedModel, store_copies_of
from service.lifespan import AppComponents
from service.model_files.repository import ModelFile, ModelRepositoryError, ServingSet
from service.system.background_tasks import Background, run_in_daemon_thread
from service.system.cache import cache_root
from service.system.malloc import trim

log = logging.getLogger(__name__)

_Identity = tuple[str, str, str | None]  # name, version, SHA-256


class ModelSwap:
    """The models that are loaded and do not serve yet, and the switch to them."""

    def __init__(self, components: AppComponents, *, stores_copies: bool) -> None:
        """One worker `stores_copies` of the serving files for all."""
        self._components = components
        self._stores_copies = stores_copies
        self._stored: tuple[ModelFile, ...] = ()
        self._background = Background(lambda: None)  # copies are optional
        self._store_lock = asyncio.Lock()
        self._prepared: dict[_Identity, ServedModel] = {}

    def describe(self, serving_set: ServingSet) -> list[ModelFile]:
        """Return the files of a set that serves here, each with its digest, card and measured batch size."""
        models = {(model.info.name, model.info.version): model for model in self._components.registry}
        return [
            replace(
                file,
                sha256=models[file.key].info.sha256,
                has_card=models[file.key].card is not None,
                max_batch=models[file.key].max_batch,
            )
            for file in serving_set.files
        ]

    def max_batches(self) -> dict[str, int]:
        """Return the largest batch of every loaded model, by its SHA-256, as this process measured it."""
        return {model.info.sha256: model.max_batch for model in self._loaded().values()}

    async def prepare(self, files: Iterable[ModelFile]) -> str | None:
        """Load those of the files that are not loaded yet; return the reason of a failure, without paths."""
        loaded = self._loaded()
        try:
            for file in files:
                if _identity_of(file) not in loaded:
                    model = await run_in_daemon_thread(lambda file=file: self._components.load(file))  # type: ignore[misc]
                    self._prepared[_identity_of(file)] = model
        except ModelRepositoryError as error:
            return error.reason
        except Exception:  # the supervisor waits for a reply, whatever failed
            log.exception("a new version could not be loaded")
            return "a process failed to load it; the server's log has the cause"
        return None

    def commit(self, serving_set: ServingSet) -> str | None:
        """Serve exactly this set; if a model of it is not loaded, return that as the reason and change nothing."""
        loaded = self._loaded()
        if missing := [file for file in serving_set.files if _identity_of(file) not in loaded]:
            return f"{missing[0].name}:{missing[0].version} has not been prepared"
        models = [loaded[_identity_of(file)] for file in serving_set.files]
        for file, model in zip(serving_set.files, models, strict=True):
            model.set_max_batch(file.max_batch)
        for model in loaded.values():
            if model not in models:
                _trim_when_freed(model)
        self._prepared.clear()
        self._components.registry.serve(models, serving_set.default, serving_set.states)
        self._components.metrics.note_models(model.info for model in models)
        if self._stores_copies and serving_set.files != self._stored:
            self._stored = serving_set.files
            self._background.start(self._store(serving_set.files))
        return None

    async def _store(self, files: tuple[ModelFile, ...]) -> None:
        async with self._store_lock:
            await run_in_daemon_thread(lambda: store_copies_of(files, cache_root()))

    def _loaded(self) -> dict[_Identity, ServedModel]:
        return {_identity(model): model for model in self._components.registry} | self._prepared


def _identity(model: ServedModel) -> _Identity:
    return model.info.name, model.info.version, model.info.sha256


def _identity_of(file: ModelFile) -> _Identity:
    return file.name, file.version, file.sha256


def _trim_when_freed(model: ServedModel) -> None:
    """Return a replaced model's memory to the system: the allocator keeps freed memory otherwise."""
    thread = threading.Thread(target=trim, name="trim", daemon=True)
    weakref.finalize(model, call_on_loop, asyncio.get_running_loop(), thread.start).atexit = False
