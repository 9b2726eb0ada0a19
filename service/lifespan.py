"""The lifespan of the application: its components, the loading of models, and the drain.

`make_components` only builds. The lifespan loads the models and owns the engine's threads.
"""

import logging
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from fastapi import FastAPI

from service.batching.batcher import Batcher
from service.batching.load_shedding import QueueLimits
from service.engine.cpu import processor
from service.engine.engine import DEVICE_LOST_STATUS, EngineOptions
from service.engine.provider_options import GPU_PROVIDERS, LARGEST_GPU_BATCH
from service.engine.provider_selection import is_fallback
from service.http.access_log import AccessLog
from service.http.readiness import Readiness
from service.http.tracing import Tracer
from service.http.upload_limits import UploadMemory
from service.images.limits import ImageLimits
from service.images.preprocessing import usual_resizer
from service.inference.latency_history import best_latency
from service.inference.layout import WorkerLayout, choose_layout
from service.inference.registry import Registry, ServedModel, load, load_models
from service.model_files.card import ModelCard
from service.model_files.repository import ModelFile, ServingSet
from service.model_files.serving_set import locate_models, read_serving_set, warn_about_ignored_folders
from service.settings import Settings
from service.system.background_tasks import run_in_daemon_thread
from service.system.cache import cache_root
from service.system.cores import available_cores
from service.system.shared_counters import SharedLoad
from service.telemetry.metrics import Metrics, Sources
from service.telemetry.otlp import collector
from service.telemetry.prometheus import Snapshot

log = logging.getLogger(__name__)

_QUEUE_AGE_S, _NEVER_REFUSED = 5.0, 64  # defaults; a limit that an operator sets has no exception
_LAST_RESPONSES_S = 0.5  # for sending the responses of images that failed with a lost GPU
_STOP_ENGINE_S = 1.5  # for batches that still run when all connections have ended


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """An application's place among the workers that run it."""

    shared_load: SharedLoad
    index: int  # among the workers, from 0
    layout: WorkerLayout | None  # None: the first worker measures the default model
    serving_set: ServingSet
    collect_statistics: Callable[[], Awaitable[Snapshot | None]]  # of all workers; None: unknown


@dataclass(frozen=True, slots=True)
class AppComponents:
    """Components that live as long as the application."""

    readiness: Readiness
    registry: Registry
    metrics: Metrics
    batcher: Batcher
    upload_memory: UploadMemory
    tracer: Tracer | None  # None: no traces
    load: Callable[[ModelFile], ServedModel]  # by the settings; blocks, so it runs in a thread


def make_components(settings: Settings, slot: WorkerSlot | None, request_log: AccessLog | None) -> AppComponents:
    """Return new components; without a slot this process is the only one."""
    limits = (
        QueueLimits(settings.max_queue, _QUEUE_AGE_S, never_refused=_NEVER_REFUSED)
        if settings.max_queue_age_s is None
        else QueueLimits(settings.max_queue, settings.max_queue_age_s)
    )
    batcher = (
        Batcher(limits) if slot is None else Batcher(limits, shared_load=slot.shared_load, worker_index=slot.index)
    )
    target = collector()
    tracer = None if target is None else Tracer(target, settings.trace_ratio)
    registry, upload_memory = Registry(), UploadMemory(settings.max_upload_bytes)
    metrics = Metrics(
        sources=_sources(settings, batcher, registry, upload_memory, request_log, tracer),
        counted_labels=settings.label_metrics,
        collect_all=None if slot is None else slot.collect_statistics,
    )
    readiness = Readiness()
    load_it = partial(
        load,
        providers=settings.providers,
        max_batch=settings.max_batch,
        host=_engine_options(settings, readiness),
        limits=ImageLimits.of(settings.max_pixels, settings.max_side),
        model_keys=settings.model_keys,
    )
    return AppComponents(readiness, registry, metrics, batcher, upload_memory, tracer, load_it)


def _sources(
    settings: Settings,
    batcher: Batcher,
    registry: Registry,
    uploads: UploadMemory,
    request_log: AccessLog | None,
    tracer: Tracer | None,
) -> Sources:
    """Return what the metrics read from other parts of the process."""
    return Sources(
        counters={
            "resnet_engine_busy_seconds": lambda: batcher.busy_s,
            "resnet_log_lines_dropped": lambda: 0 if request_log is None else request_log.writer.dropped,
            "resnet_traces_dropped": lambda: 0 if tracer is None else tracer.exporter.dropped,
        },
        gauges={
            "resnet_queue_depth": lambda: batcher.waiting,
            "resnet_queue_age_seconds": batcher.oldest_age_s,
            "resnet_engine_threads": lambda: batcher.running_threads,
            "resnet_upload_memory_bytes": lambda: uploads.used_bytes,
            "resnet_upload_memory_limit_bytes": lambda: uploads.most_bytes,
            "resnet_fallback_models": lambda: sum(
                is_fallback(settings.providers, model.info.provider) for model in registry
            ),
        },
    )


@asynccontextmanager
async def run_components(
    app: FastAPI, settings: Settings, components: AppComponents, slot: WorkerSlot | None
) -> AsyncIterator[None]:
    """Load the models in a thread while the event loop answers health checks; then run the engine.

    Sets `app.state.layout`. In a slot the application becomes ready by the supervisor's message, else by itself. Raises
    ModelRepositoryError, EngineError.
    """
    serving_set = _serving_set(settings) if slot is None else slot.serving_set
    models = await run_in_daemon_thread(
        lambda: load_models(serving_set.files, components.load, settings.load_timeout_s)
    )
    components.registry.serve(models, serving_set.default)
    components.metrics.note_models(model.info for model in models)
    del models  # this frame lives as long as the process and would keep replaced models
    layout = slot.layout if slot is not None and slot.layout is not None else _layout(settings, components.registry)
    app.state.layout = layout
    components.upload_memory.set_limit(settings.max_upload_bytes // layout.processes)
    components.batcher.start(layout.engine_threads)
    components.readiness.note_loaded()
    if slot is None:
        components.readiness.become_ready()
    if slot is None or slot.index == 0:  # all workers have the same models
        _log_models(components.registry)
        warn_about_ignored_folders(locate_models(settings.models))
    yield
    components.readiness.start_draining()
    await components.batcher.stop(_STOP_ENGINE_S)
    if components.tracer is not None:
        await run_in_daemon_thread(components.tracer.exporter.flush)


def _serving_set(settings: Settings) -> ServingSet:
    location = locate_models(settings.models, settings.model_name)
    return read_serving_set(location, default_model=settings.default_model, latest=settings.latest_versions)


def _engine_options(settings: Settings, readiness: Readiness) -> EngineOptions:
    def exit_to_restart() -> None:
        readiness.note_broken()
        log.critical("the GPU does not respond; exiting with status %d for a restart", DEVICE_LOST_STATUS)
        threading.Timer(_LAST_RESPONSES_S, os._exit, (DEVICE_LOST_STATUS,)).start()

    return EngineOptions(
        exclusive_threads=settings.engine_threads or available_cores(),
        cache=cache_root(),
        largest_gpu_batch=settings.max_batch or LARGEST_GPU_BATCH,
        report=readiness.report_activity,
        on_device_lost=exit_to_restart,
        allow_bf16=settings.allow_bf16,
    )


def _layout(settings: Settings, registry: Registry) -> WorkerLayout:
    default = registry.default()
    single_image_s = best_latency(
        cache_root(), model=default.info.sha256, processor=processor(), measured_s=default.single_image_s
    )
    return choose_layout(
        single_image_s=single_image_s,
        is_on_gpu=default.info.provider in GPU_PROVIDERS,
        cores=available_cores(),
        processes=settings.processes,
        engine_threads=settings.engine_threads,
    )


def _log_models(registry: Registry) -> None:
    for model in registry:
        info = model.info
        log.info(
            "%s:%s%s sha256 %s, %s on %s, batches up to %d",
            info.name,
            info.version,
            " (default)" if registry.is_default(model) else "",
            info.sha256[:12],
            info.precision,
            info.provider,
            model.max_batch,
        )
    log.info("images are resized by %s", usual_resizer())
    for model in registry:
        if model.card is not None and (note := _resizer_note(model.card)):
            log.info("%s:%s %s", model.info.name, model.info.version, note)
    if registry.default().card is None:
        log.warning(
            "the default model has no model card, so it takes tensors over /v2 only; export it with a card to classify "
            "images"
        )


def _resizer_note(card: ModelCard) -> str | None:
    """Return the log line of a model whose accuracy was measured with another resizer; None for the same one."""
    measured, serving = card.preprocessing.resizer, usual_resizer()
    if measured in (None, serving):
        return None
    return f"was measured with images resized by {measured}; {serving} is used here, with differences up to 1 of 255"
