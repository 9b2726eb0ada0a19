"""The admin port: metrics of all processes, TorchServe's listing of models, and their loading and unloading.

Changing models requires an admin key, unless the port listens on the loopback address and has no keys. Metrics and the
listing need no key. Browser pages are refused on every path (`service/access_control/admin_access.py`).
"""

from collections.abc import Awaitable, Callable
from typing import Literal

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access_control.admin_access import AdminAccess
from service.api.torchserve_management import PATHS as LISTING_PATHS
from service.api.torchserve_management import Managed, management_routes
from service.api.v2.model_control import Change, change_routes, check_parameters
from service.errors import request_too_large
from service.http.access_log import AccessLog
from service.http.admission import Admission
from service.http.error_format import method_not_allowed, not_found
from service.http.readiness import Readiness
from service.http.route_labels import RouteNames
from service.http.upload_limits import BodyLimit, UploadMemory
from service.telemetry.metrics import Metrics
from service.telemetry.prometheus import METRICS_MEDIA_TYPE

_MOST_BODY_BYTES = 64 * 1024
_MOST_UPLOADS = 16


def create_admin_app(
    scrape: Callable[[], Awaitable[bytes]],
    change: Change,
    readiness: Readiness,
    gate: AdminAccess,
    managed: Callable[[], Managed],
    request_log: AccessLog | None = None,
) -> ASGIApp:
    """Return the ASGI application of the admin port.

    `scrape` returns the body of /metrics. `change` loads or unloads a model and returns the states of its versions.
    `managed` returns the models that serve, for their listing.
    """

    async def metrics(_: Request) -> Response:
        return Response(await scrape(), media_type=METRICS_MEDIA_TYPE)

    changes = [*_change_routes(change), *change_routes(change)]
    paths = [route.path for route in changes]
    listing = management_routes(managed)
    router = Router([Route("/metrics", metrics), *listing, *changes], redirect_slashes=False, default=_answer_nothing)
    return Admission(
        _guarded(router, RouteNames(paths), gate),
        readiness=readiness,
        metrics=Metrics(),
        routes=RouteNames([*paths, *LISTING_PATHS, "/metrics"]),
        request_log=request_log,
        bodies=dict.fromkeys(paths, BodyLimit(_MOST_BODY_BYTES, 0, request_too_large)),
        upload_memory=UploadMemory(_MOST_UPLOADS * _MOST_BODY_BYTES),
    )


def _change_routes(change: Change) -> list[Route]:
    def route(action: Literal["load", "unload"]) -> Route:
        async def answer(request: Request) -> Response:
            check_parameters(await request.body())
            states = await change(action, request.path_params["model"])
            content = orjson.dumps({"versions": states}, option=orjson.OPT_APPEND_NEWLINE)
            return Response(content, media_type="application/json")

        return Route(f"/admin/models/{{model}}/{action}", answer, methods=["POST"])

    return [route("load"), route("unload")]


def _guarded(router: Router, changes: RouteNames, gate: AdminAccess) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        gate.check_not_a_page(headers)
        if scope["method"] == "POST" and "{" in changes.name_of(scope["path"]):
            gate.check_change(headers)
        scope["app"] = router  # the router then raises HTTPException instead of sending a plain-text response
        try:
            await router(scope, receive, send)
        except HTTPException as error:
            methods = (error.headers or {}).get("Allow", "").split(", ")
            await method_not_allowed(scope["path"], methods)(scope, receive, send)

    return answer


async def _answer_nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await not_found(scope["path"])(scope, receive, send)
