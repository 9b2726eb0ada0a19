"""The HTTP application: which routes there are, what lies around them, and what lives as long as it runs.

Nothing happens at import. `create_app` only builds; the lifespan loads the models and owns the engine's threads.
"""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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

from service.admission import Admission
from service.api.classify import PATH, ClassifyEndpoint
from service.api.docs import docs_page
from service.api.openapi import DocumentedApp
from service.api.operations import add_operations, add_page, metrics_route, page_answer
from service.batcher import Batcher
from service.cores import available_cores
from service.errors import BadRequest, MethodNotAllowed, NotFound
from service.metrics import Metrics
from service.problem import problem, problem_response
from service.readiness import Readiness
from service.registry import Registry, load_models
from service.settings import Settings

log = logging.getLogger(__name__)

_STOP_ENGINE_S = 1.5  # for what is still running when all clients have been answered or given up
# FastAPI would export traces, and exceptions' texts with them, wherever the environment tells it to.
_NO_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False)


def create_app(settings: Settings) -> FastAPI:
    """Return the public application. Its `state` has `readiness` and `metrics`, for whoever runs it."""
    readiness, registry, metrics = Readiness(), Registry(), Metrics()
    batcher = Batcher(
        threads=settings.engine_threads or available_cores(),
        max_waiting=settings.max_queue,
        max_age_s=settings.max_queue_age_s,
    )
    metrics.queue_depth = lambda: batcher.waiting

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        classifiers, default = load_models(
            settings.models,
            default_model=settings.default_model,
            providers=settings.providers,
            max_batch=settings.max_batch,
        )
        batcher.start()
        registry.serve(classifiers, default)
        metrics.note_models(classifier.info for classifier in classifiers)
        readiness.state = "ready"
        _log_models(registry, batcher)
        yield
        readiness.state = "draining"
        await batcher.stop(_STOP_ENGINE_S)

    app = DocumentedApp(
        title="Residual network classifier",
        description="Send a picture, get the labels that a residual network gives it.",
        version=version("resnet-service"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    app.state.readiness, app.state.metrics = readiness, metrics
    endpoint = ClassifyEndpoint(registry, batcher, metrics, max_image_bytes=settings.max_image_bytes)
    app.router.routes.insert(0, Route(PATH, endpoint, methods=["POST"]))
    add_operations(app, readiness, registry)
    add_page(app)
    _add_docs(app)
    _answer_http_errors(app)
    app.add_middleware(
        Admission,
        readiness=readiness,
        metrics=metrics,
        paths=_paths(app),
        working_paths=(PATH,),
        check_room=batcher.check_room,
        max_image_bytes=settings.max_image_bytes,
        max_upload_bytes=settings.max_upload_bytes,
    )
    return app


def create_admin_app(public: FastAPI) -> Starlette:
    """Return the application of the admin port, for a public one."""
    app = Starlette(routes=[metrics_route(public.state.metrics)])
    app.router.redirect_slashes = False
    _answer_http_errors(app)
    app.add_middleware(
        Admission, readiness=Readiness(), metrics=Metrics(), paths=(), max_image_bytes=0, max_upload_bytes=0
    )
    return app


def _paths(app: FastAPI) -> list[str]:
    return [path for route in app.routes if isinstance(path := getattr(route, "path", None), str)]


def _add_docs(app: FastAPI) -> None:
    async def answer(_: Request) -> Response:
        return page_answer(docs_page(app.openapi()))

    app.router.routes.append(Route("/docs", answer))


def _answer_http_errors(app: Starlette) -> None:
    """Let the framework's own refusals look like all others."""
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)


async def _answer_http_exception(_: Request, error: Any) -> Response:
    if error.status_code == MethodNotAllowed.status:
        text = "This path does not have that method; Allow names those it has."
        return problem(405, MethodNotAllowed.code, MethodNotAllowed.title, text, error.headers)
    if error.status_code == NotFound.status:
        return problem_response(NotFound("There is nothing at this path; /docs shows what there is."))
    raise error


async def _answer_invalid_request(_: Request, __: Any) -> Response:
    return problem_response(BadRequest("The request's parameters are not as /docs describes them."))


def _log_models(registry: Registry, batcher: Batcher) -> None:
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
    log.info("%d engine threads, at most %d pictures waiting", batcher.thread_count, batcher.max_waiting)
