"""The HTTP application: its routes and the middleware around them.

Nothing happens at import. `create_app` only builds; the lifespan (`service/lifespan.py`) loads the models.
"""

import logging
from collections.abc import Mapping
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

from service.access_control.access_policy import Access, make_access
from service.access_control.rate_limits import RateLimits, make_rate_limits
from service.api.compatibility import compatibility_body_limits, compatibility_routes
from service.api.endpoints import batch, classify, embed, explain
from service.api.endpoints.inference import InferenceService
from service.api.endpoints.responses import JsonAnswer
from service.api.health import add_operations
from service.api.models import UploadLimits, add_models
from service.api.openapi.document import DocumentedApp
from service.api.pages import add_docs, add_page
from service.api.v2.infer import InferEndpoint
from service.api.v2.routes import INFER_PATHS, OpenInference
from service.errors import BadRequest, MethodNotAllowed, NotFound, request_too_large
from service.http.access_log import AccessLog
from service.http.admission import Admission
from service.http.early_refusals import EarlyRefusals
from service.http.error_format import failure_response, method_not_allowed, not_found
from service.http.route_labels import RouteNames
from service.http.upload_limits import BodyLimit
from service.lifespan import AppComponents, WorkerSlot, make_components, run_components
from service.settings import Settings

log = logging.getLogger(__name__)

# FastAPI would export traces, with the texts of exceptions, if the environment variables of OpenTelemetry are set.
_NO_TELEMETRY = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False)


def create_app(
    settings: Settings,
    slot: WorkerSlot | None = None,
    request_log: AccessLog | None = None,
    rate_limits: RateLimits | None = None,
) -> FastAPI:
    """Return the public application.

    Its `state` has `components`, `access` and `early_refusals`, and `layout` once it has started.
    `rate_limits` are those of all workers; without them, this process has its own, if the settings have any.
    With a slot it is one of several workers, and ready when the supervisor reports that all are; without one it is
    ready when its models are loaded.
    """
    components = make_components(settings, slot, request_log)
    app = DocumentedApp(
        title="Residual network classifier",
        description="Send an image and receive the labels that a residual network predicts.",
        version=version("resnet-service"),
        lifespan=lambda app: run_components(app, settings, components, slot),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        default_response_class=JsonAnswer,
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    app.state.components = components
    serving = InferenceService(components.registry, components.batcher, components.metrics, settings.max_image_bytes)
    endpoints = _endpoints(settings, serving)
    open_routes = _add_routes(app, settings, components, serving, endpoints)
    app.wants_keys = settings.api_keys_file is not None
    _answer_http_errors(app)
    access = make_access(
        settings.api_keys_file, open_routes, settings.trusted_hosts, settings.cors_origins, settings.trusted_proxies
    )
    limits = rate_limits or make_rate_limits(settings.rate_limit_per_s, settings.rate_limit_burst)
    _add_admission(app, settings, components, endpoints, access, limits, request_log)
    return app


def _endpoints(settings: Settings, serving: InferenceService) -> dict[str, ASGIApp]:
    return {
        classify.PATH: classify.ClassifyEndpoint(serving),
        batch.PATH: batch.BatchEndpoint(serving, max_waiting=settings.max_queue),
        explain.PATH: explain.ExplainEndpoint(serving),
        embed.PATH: embed.EmbedEndpoint(serving),
    }


def _add_routes(
    app: FastAPI,
    settings: Settings,
    components: AppComponents,
    serving: InferenceService,
    endpoints: Mapping[str, ASGIApp],
) -> frozenset[str]:
    """Add all routes; return the paths that need no API key."""
    app.router.routes[:0] = [Route(path, endpoint, methods=["POST"]) for path, endpoint in endpoints.items()]
    app.router.routes.extend(_open_inference(settings, components, serving).routes())
    app.router.routes.extend(compatibility_routes(serving, components.readiness, max_waiting=settings.max_queue))
    add_operations(app, components.readiness, components.registry)
    limits = UploadLimits(settings.max_image_bytes, settings.max_pixels, settings.max_side)
    add_models(app, components.readiness, components.registry, limits)
    return frozenset((*add_page(app), *add_docs(app)))


def _open_inference(settings: Settings, components: AppComponents, serving: InferenceService) -> OpenInference:
    most_bytes = settings.max_request_bytes
    infer = InferEndpoint(serving, max_request_bytes=most_bytes, max_waiting=settings.max_queue)
    return OpenInference(serving, components.readiness, infer, most_bytes, settings.latest_versions)


def _add_admission(
    app: FastAPI,
    settings: Settings,
    components: AppComponents,
    endpoints: Mapping[str, ASGIApp],
    access: Access,
    rate_limits: RateLimits | None,
    request_log: AccessLog | None,
) -> None:
    app.state.access = access
    routes, bodies = RouteNames(_paths(app)), _body_limits(settings)
    app.state.early_refusals = EarlyRefusals(
        retry_after_s=components.batcher.retry_after_s,
        readiness=components.readiness,
        routes=routes,
        bodies=bodies,
        access=access,
        metrics=components.metrics,
        request_log=request_log,
    )
    app.add_middleware(
        Admission,
        readiness=components.readiness,
        metrics=components.metrics,
        routes=routes,
        bodies=bodies,
        endpoints=endpoints,
        check_capacity=components.batcher.check_capacity,
        delays_others=components.batcher.delays_others,
        upload_memory=components.upload_memory,
        access=access,
        rate_limits=rate_limits,
        request_log=request_log,
        tracer=components.tracer,
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


def _answer_http_errors(app: Starlette) -> None:
    """Return the framework's own errors in the format of all other errors."""
    app.add_exception_handler(HTTPException, _answer_http_exception)
    app.add_exception_handler(RequestValidationError, _answer_invalid_request)


async def _answer_http_exception(request: Request, error: Any) -> Response:
    path = request.scope["path"]
    if error.status_code == MethodNotAllowed.status:
        methods = set(error.headers["Allow"].split(", "))
        if "GET" in methods:
            methods.add("HEAD")  # another route may answer it
        return method_not_allowed(path, methods)
    if error.status_code == NotFound.status:
        return not_found(path)
    raise error


async def _answer_invalid_request(request: Request, _: Any) -> Response:
    error = BadRequest("The request's parameters are not as /docs describes them.")
    return failure_response(request.scope["path"], error)
