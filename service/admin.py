"""The admin port: the statistics of all processes. Plain ASGI, because the supervisor that serves it stays small."""

from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.admission import Admission
from service.dialect import method_not_allowed, not_found
from service.exchange import UploadMemory
from service.exposition import METRICS_MEDIA_TYPE
from service.metrics import Metrics
from service.readiness import Readiness
from service.route_names import RouteNames

_METRICS_PATH = "/metrics"
_METHODS = ("GET", "HEAD")


def create_admin_app(scrape: Callable[[], Awaitable[bytes]]) -> ASGIApp:
    """Return the application of the admin port; `scrape` returns what /metrics answers."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != _METRICS_PATH:
            response = not_found(scope["path"])
        elif scope["method"] not in _METHODS:
            response = method_not_allowed(scope["path"], _METHODS)
        else:
            response = Response(await scrape(), media_type=METRICS_MEDIA_TYPE)
        await response(scope, receive, send)

    return Admission(
        answer,
        readiness=Readiness(),
        metrics=Metrics(),
        routes=RouteNames(()),
        bodies={},
        upload_memory=UploadMemory(0),
    )
