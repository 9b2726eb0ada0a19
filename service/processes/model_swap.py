"""A worker's part in a change of models: load beside what serves, then serve the new set from one moment to the next.

Whoever is in a queue keeps the model that was asked; with the last of them the old one is freed.
"""

import asyncio
import logging
import threading
import weakref
from collections.abc import Iterable
from dataclasses import replace

from service.app import Parts
from service.batching.jobs import call
from service.inference.registry import Served, keep_models
from service.model_files.repository import ModelFile, ModelRepositoryError, ServingSet
from service.system.background_tasks import Background, run_in_daemon_thread
from service.system.cache import cache_root
from service.system.malloc import trim

log = logging.getLogger(__name__)

_Identity = tuple[str, str, str | None]


class ModelSwap:
    """Holds what is loaded and does not serve yet."""

    def __init__(self, parts: Parts, *, keeps_files: bool) -> None:
        """One process of those that serve `keeps_files` for all."""
        self._parts = parts
        self._keeps_files = keeps_files
        self._kept: tuple[ModelFile, ...] = ()
        self._background = Background(lambda: None)  # without a copy everything goes on
        self._one_at_a_time = asyncio.Lock()
        self._prepared: dict[_Identity, Served] = {}

    def files_of(self, lineup: ServingSet) -> list[ModelFile]:
        """Return the line-up's files, each with what was found in it."""
        models = {(model.info.name, model.info.version): model for model in self._parts.registry}
        return [
            replace(
                file,
                sha256=models[file.key].info.sha256,
                has_card=models[file.key].card is not None,
                max_batch=models[file.key].max_batch,
            )
            for file in lineup.files
        ]

    def measured(self) -> dict[str, int]:
        """Return the largest batch of every loaded model, by its SHA-256, as this process measured it."""
        return {model.info.sha256: model.max_batch for model in self._have().values()}

    async def prepare(self, files: Iterable[ModelFile]) -> str | None:
        """Load what is not there yet; return why that is not possible, without paths."""
        have = self._have()
        try:
            for file in files:
                if _wanted(file) not in have:
                    self._prepared[_wanted(file)] = await run_in_daemon_thread(lambda file=file: self._parts.load(file))  # type: ignore[misc]
        except ModelRepositoryError as error:
            return error.reason
        except Exception:  # whatever breaks, the supervisor waits for an answer
            log.exception("a new version could not be loaded")
            return "a process failed to load it; the server's log has the cause"
        return None

    def take(self, lineup: ServingSet) -> str | None:
        """Serve these and no others; return what is missing for that, and then change nothing."""
        have = self._have()
        if missing := [file for file in lineup.files if _wanted(file) not in have]:
            return f"{missing[0].name}:{missing[0].version} has not been prepared"
        models = [have[_wanted(file)] for file in lineup.files]
        for file, model in zip(lineup.files, models, strict=True):
            model.agree_on(file.max_batch)
        for model in have.values():
            if model not in models:
                _free_with_its_last_user(model)
        self._prepared.clear()
        self._parts.registry.serve(models, lineup.default, lineup.states)
        self._parts.metrics.note_models(model.info for model in models)
        if self._keeps_files and lineup.files != self._kept:
            self._kept = lineup.files
            self._background.start(self._keep(lineup.files))
        return None

    async def _keep(self, files: tuple[ModelFile, ...]) -> None:
        async with self._one_at_a_time:
            await run_in_daemon_thread(lambda: keep_models(files, cache_root()))

    def _have(self) -> dict[_Identity, Served]:
        return {_identity(model): model for model in self._parts.registry} | self._prepared


def _identity(model: Served) -> _Identity:
    return model.info.name, model.info.version, model.info.sha256


def _wanted(file: ModelFile) -> _Identity:
    return file.name, file.version, file.sha256


def _free_with_its_last_user(model: Served) -> None:
    """The system gets a large model's memory only if it is asked to take it."""
    thread = threading.Thread(target=trim, name="give-back", daemon=True)
    weakref.finalize(model, call, asyncio.get_running_loop(), thread.start).atexit = False
