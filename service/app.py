"""The HTTP application: which routes there are, what lies around them, and what lives as long as it runs.

Nothing happens at import. `create_app` only builds; the lifespan loads the models and owns the engine's threads.
"""

import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.telemetry import TelemetryConfig
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from service.api.compatibility import compatibility_body_limits, compatibility_routes
from service.api.endpoints import batch, classify, embed, explain
from service.api.endpoints.inference import InferenceService
from service.api.endpoints.responses import JsonAnswer
from service.api.health import add_operations, add_page, page_answer
from service.api.models import add_models
from service.api.openapi.docs_page import docs_page
from service.api.openapi.document import DocumentedApp
from service.api.v2.infer import InferEndpoint
from service.api.v2.routes import INFER_PATHS, OpenInference
from service.batching.batcher import Batcher
from service.batching.load_shedding import QueueLimits
from service.engine.cpu import processor
from service.engine.engine import DEVICE_LOST_STATUS, EngineOptions
from service.engine.provider_options import LARGEST_GPU_BATCH
from service.errors import BadRequest, MethodNotAllowed, NotFound, request_too_large
from service.http.access_log import AccessLog
from service.http.access_policy import Access, make_access
from service.http.admission import Admission
from service.http.error_format import failure_response, method_not_allowed, not_found
from service.http.readiness import Readiness
from service.http.request_context import BodyLimit, UploadMemory
from service.http.route_labels import RouteNames
from service.images.limits import ImageLimits
from service.images.preprocessing import usual_resizer
from service.inference.latency_history import shortest_ever
from service.inference.layout import WorkerLayout, choose_layout
from service.inference.registry import Registry, Served, load, load_models
from service.model_files.card import ModelCard
from service.model_files.repository import ModelFile, ServingSet, read_lineup, warn_of_what_is_left_out
from service.settings import Settings
from service.system.background_tasks import run_in_daemon_thread
from service.system.cache import cache_root
from service.system.cores import available_cores
from service.system.shared_counters import SharedLoad
from service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_QUEUE_AGE_S, _NEVER_REFUSED = 5.0, 64  # unless an operator sets a limit: then that one holds for all
_LAST_WORDS_S = 0.5  # for the answers to those whose images a lost GPU had
_STOP_ENGINE_S = 1.5  # for what is still running when all clients have been answered or given up
# FastAPI would export traces, and exceptions' texts with them, wherever the environment tells it to.
_NO_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False)


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """An application's place among the processes that run it."""

    board: SharedLoad
    place: int
    layout: WorkerLayout | None  # None: the first to come measures the default model
    lineup: ServingSet


@dataclass(frozen=True, slots=True)
class Parts:
    """What lives as long as the application."""

    readiness: Readiness
    registry: Registry
    metrics: Metrics
    batcher: Batcher
    upload_memory: UploadMemory
    load: Callable[[ModelFile], Served]  # as the settings say; in a thread


def create_app(settings: Settings, among: WorkerSlot | None = None, request_log: AccessLog | None = None) -> FastAPI:
    """Return the public application. Its `state` has `parts`, and `layout` once it has started.

    `among` others it is ready only when somebody says so; alone it is when its models are loaded.
    """
    parts = _make_parts(settings, among)
    app = DocumentedApp(
        title="Residual network classifier",
        description="Send an image, get the labels that a residual network gives it.",
        version=version("resnet-service"),
        lifespan=lambda app: _lifespan(app, settings, parts, among),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        default_response_class=JsonAnswer,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    app.state.parts = parts
    serving = InferenceService(parts.registry, parts.batcher, parts.metrics, settings.max_image_bytes)
    endpoints = _endpoints(settings, serving)
    open_routes = _add_routes(app, settings, parts, serving, endpoints)
    app.wants_keys = settings.api_keys_file is not None
    if request_log is not None:
        parts.metrics.dropped_log_lines = lambda: request_log.writer.dropped
    _answer_http_errors(app)
    of_requests = (settings.trusted_hosts, settings.cors_origins, settings.trusted_proxies)
    access = make_access(settings.api_keys_file, open_routes, *of_requests)
    _add_admission(app, settings, parts, endpoints, access, request_log)
    return app


def _make_parts(settings: Settings, among: WorkerSlot | None) -> Parts:
    limits = (
        QueueLimits(settings.max_queue, _QUEUE_AGE_S, never_refused=_NEVER_REFUSED)
        if settings.max_queue_age_s is None
        else QueueLimits(settings.max_queue, settings.max_queue_age_s)
    )
    batcher = Batcher(limits) if among is None else Batcher(limits, board=among.board, place=among.place)
    metrics = Metrics()
    metrics.queue_depth = lambda: batcher.waiting
    metrics.queue_age_s = batcher.oldest_age_s
    readiness = Readiness()
    load_it = partial(
        load,
        providers=settings.providers,
        max_batch=settings.max_batch,
        host=_host(settings, readiness),
        limits=ImageLimits.of(settings.max_pixels, settings.max_side),
    )
    return Parts(readiness, Registry(), metrics, batcher, UploadMemory(settings.max_upload_bytes), load_it)


@asynccontextmanager
async def _lifespan(app: FastAPI, settings: Settings, parts: Parts, among: WorkerSlot | None) -> AsyncIterator[None]:
    """Load the models beside the event loop, which can say meanwhile that they are not ready; then run the engine."""
    lineup = _lineup(settings) if among is None else among.lineup
    models = await run_in_daemon_thread(lambda: load_models(lineup.files, parts.load, settings.load_timeout_s))
    parts.registry.serve(models, lineup.default)
    parts.metrics.note_models(model.info for model in models)
    del models  # this frame lives as long as the process, and a model that is replaced shall be freed
    layout = among.layout if among is not None and among.layout is not None else _layout(settings, parts.registry)
    app.state.layout = layout
    parts.upload_memory.most_bytes = settings.max_upload_bytes // layout.processes
    parts.batcher.thread_count = layout.engine_threads
    parts.batcher.start()
    parts.readiness.state = "ready" if among is None else "loaded"
    if among is None or among.place == 0:  # the others have the same
        _log_models(parts.registry)
        warn_of_what_is_left_out(settings.models)
    yield
    parts.readiness.state = "draining"
    await parts.batcher.stop(_STOP_ENGINE_S)


def _lineup(settings: Settings) -> ServingSet:
    return read_lineup(settings.models, default_model=settings.default_model, latest=settings.latest_versions)


def _host(settings: Settings, readiness: Readiness) -> EngineOptions:
    def note(activity: str | None) -> None:
        readiness.activity = activity

    def leave() -> None:
        readiness.state = "broken"
        log.critical("leaving with status %d, to be started again", DEVICE_LOST_STATUS)
        threading.Timer(_LAST_WORDS_S, os._exit, (DEVICE_LOST_STATUS,)).start()

    return EngineOptions(
        alone_threads=settings.engine_threads or available_cores(),
        cache=cache_root(),
        largest_gpu_batch=settings.max_batch or LARGEST_GPU_BATCH,
        report=note,
        on_device_lost=leave,
    )


def _layout(settings: Settings, registry: Registry) -> WorkerLayout:
    default = registry.default()
    alone_s = shortest_ever(cache_root(), model=default.info.sha256, processor=processor(), measured_s=default.alone_s)
    return choose_layout(
        alone_s=alone_s,
        is_on_gpu=default.info.provider != "CPUExecutionProvider",
        cores=available_cores(),
        processes=settings.processes,
        engine_threads=settings.engine_threads,
    )


def _endpoints(settings: Settings, serving: InferenceService) -> dict[str, ASGIApp]:
    return {
        classify.PATH: classify.ClassifyEndpoint(serving),
        batch.PATH: batch.BatchEndpoint(serving, max_waiting=settings.max_queue),
        explain.PATH: explain.ExplainEndpoint(serving),
        embed.PATH: embed.EmbedEndpoint(serving),
    }


def _add_routes(
    app: FastAPI, settings: Settings, parts: Parts, serving: InferenceService, endpoints: Mapping[str, ASGIApp]
) -> frozenset[str]:
    """Return the routes that need no key."""
    app.router.routes[:0] = [Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.items()]
    app.router.routes.extend(_open_inference(settings, parts, serving).routes())
    app.router.routes.extend(compatibility_routes(serving, parts.readiness, max_waiting=settings.max_queue))
    add_operations(app, parts.readiness, parts.registry)
    add_models(app, parts.readiness, parts.registry)
    page = add_page(app)
    _add_docs(app)
    return frozenset((*page, "/docs", "/openapi.json"))


def _open_inference(settings: Settings, parts: Parts, serving: InferenceService) -> OpenInference:
    most_bytes = settings.max_request_bytes
    infer = InferEndpoint(serving, max_request_bytes=most_bytes, max_waiting=settings.max_queue)
    return OpenInference(serving, parts.readiness, infer, most_bytes, settings.latest_versions)


def _add_admission(
    app: FastAPI,
    settings: Settings,
    parts: Parts,
    endpoints: Mapping[str, ASGIApp],
    access: Access,
    request_log: AccessLog | None,
) -> None:
    app.add_middleware(
        Admission,
        readiness=parts.readiness,
        metrics=parts.metrics,
        routes=RouteNames(_paths(app)),
        bodies=_body_limits(settings),
        endpoints=endpoints,
        check_capacity=parts.batcher.check_capacity,
        is_in_the_way=parts.batcher.is_in_the_way,
        upload_memory=parts.upload_memory,
        access=access,
        request_log=request_log,
    )


def _body_limits(settings: Settings) -> dict[str, BodyLimit]:
    one_image = BodyLimit(settings.max_image_bytes)
    return {
        **dict.fromkeys((classify.PATH, explain.PATH, embed.PATH), one_image),
        **dict.fromkeys((batch.PATH, *INFER_PATHS), BodyLimit(settings.max_request_bytes, 0, request_too_large)),
        **compatibility_body_limits(settings.max_image_bytes, settings.max_request_bytes),
    }


def _paths(app: FastAPI) -> list[str]:
    return [path for route in app.routes if isinstance(path := getattr(route, "path", None), str)]


def _add_docs(app: FastAPI) -> None:
    async def answer(_: Request) -> Response:
        return page_answer(docs_page(app.openapi()))

    async def document(_: Request) -> Response:
        return JsonAnswer(app.openapi())

    app.router.routes += [Route("/docs", answer), Route("/openapi.json", document)]


def _answer_http_errors(app: Starlette) -> None:
    """Let the framework's own refusals look like all others."""
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)


async def _answer_http_exception(request: Request, error: Any) -> Response:
    path = request.scope["path"]
    if error.status_code == MethodNotAllowed.status:
        methods = set(error.headers["Allow"].split(", "))
        if "GET" in methods:
            methods.add("HEAD")  # maybe by another route
        return method_not_allowed(path, methods)
    if error.status_code == NotFound.status:
        return not_found(path)
    raise error


async def _answer_invalid_request(request: Request, _: Any) -> Response:
    error = BadRequest("The request's parameters are not as /docs describes them.")
    return failure_response(request.scope["path"], error)


def _log_models(registry: Registry) -> None:
    for classifier in registry:
        info = classifier.info
        log.info(
            "%s:%s%s sha256 %s, %s on %s, batches up to %d",
            info.name,
            info.version,
            " (default)" if registry.is_default(classifier) else "",
            info.sha256[:12],
            info.precision,
            info.provider,
            classifier.max_batch,
        )
    log.info("images are resized by %s", usual_resizer())
    for classifier in registry:
        if classifier.card is not None and (note := _another_resizer(classifier.card)):
            log.info("%s:%s %s", classifier.info.name, classifier.info.version, note)
    if registry.default().card is None:
        log.warning("the default model has no model card, so images are refused: it takes tensors only, over /v2")


def _another_resizer(card: ModelCard) -> str | None:
    """Return what to say of a model that was measured with another resizer than the one that serves it."""
    measured, serving = card.preprocessing.resizer, usual_resizer()
    if measured in (None, serving):
        return None
    return f"was measured with images resized by {measured}; {serving} serves it, with values within 1 of 255"
