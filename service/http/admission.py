"""Admission control: accepts or refuses a request by its headers, before its body is read.

A pure ASGI layer around all routes. It also turns failures into error responses and counts all responses.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.access_control.access_policy import PREFLIGHT_HEADERS, Access
from service.access_control.rate_limits import RateLimits
from service.batching.jobs import IsAwaited
from service.errors import Expired, NotReady, Overloaded, RateLimited, ServiceError, Unauthorized
from service.http.access_log import AccessLog
from service.http.error_format import failure_response, internal_failure
from service.http.error_responses import INTERNAL_ERROR_CODE
from service.http.readiness import Readiness
from service.http.request_context import RequestContext
from service.http.route_labels import RouteNames
from service.http.tracing import Tracer
from service.http.upload_limits import BodyLimit, UploadMemory
from service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_NO_RESTRICTIONS = Access()
_CHALLENGE = (b"www-authenticate", b'Bearer realm="resnet-service"')


class Admission:
    """Wraps an ASGI app, and puts a `RequestContext` into its scope.

    A POST to one of `endpoints` bypasses the router, which would cost more than all other steps before the endpoint.
    Only requests to the routes in `bodies`, with a method of their `BodyLimit`, may have a body. `check_capacity` takes
    the request's deadline in monotonic seconds, and raises if the request would be refused after its upload.
    `rate_limits` count the requests to the routes in `bodies`.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        readiness: Readiness,
        metrics: Metrics,
        routes: RouteNames,
        bodies: Mapping[str, BodyLimit],
        endpoints: Mapping[str, ASGIApp] = MappingProxyType({}),
        check_capacity: Callable[[float], None] = lambda _: None,
        delays_others: Callable[[IsAwaited], bool] = lambda _: False,
        upload_memory: UploadMemory,
        access: Access = _NO_RESTRICTIONS,
        rate_limits: RateLimits | None = None,
        request_log: AccessLog | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._app = app
        self._readiness = readiness
        self._metrics = metrics
        self._routes = routes
        self._bodies = bodies
        self._endpoints = endpoints
        self._check_capacity = check_capacity
        self._delays_others = delays_others
        self._memory = upload_memory
        self._access = access
        self._rate_limits = rate_limits
        self._request_log = request_log
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = self._routes.name_of(scope["path"])
        is_last = self._readiness.is_draining
        context = RequestContext(scope, receive, send, self._memory, is_last=is_last, delays_others=self._delays_others)
        scope["exchange"] = context
        context.connection.attach(context.delays_others)
        context.client = self._access.client_of(_peer(scope), context.headers)
        context.extra_headers += self._access.cors_headers(context.headers)
        if self._tracer is not None:
            self._tracer.begin(context)
        self._metrics.in_flight += 1
        try:
            await self._answer(scope, context, route)
        finally:
            self._metrics.in_flight -= 1
            # Break reference cycles, which only the garbage collector would free; a collection takes milliseconds.
            scope.pop("exchange", None)
            context.connection.detach()
            context.release_body()
            if self._request_log is not None:
                self._request_log.note(context, scope["method"], route)
            if self._tracer is not None:
                self._tracer.end(context, scope["method"], route)
            if context.status is not None:
                self._metrics.note_answer(route, scope["method"], context.status)

    async def _answer(self, scope: Scope, context: RequestContext, route: str) -> None:
        try:
            self._access.check_host(route, context.headers)
            if self._access.is_preflight(scope["method"], context.headers):
                context.extra_headers += PREFLIGHT_HEADERS
                await context.answer(Response(status_code=204))
                return
            self._admit(scope["method"], context, route)
            app = self._endpoints.get(route, self._app) if scope["method"] == "POST" else self._app
            with contextlib.suppress(ClientDisconnect):  # during the upload, so there is no client to answer
                await app(scope, context.receive, context.send)
        except ServiceError as error:
            self._metrics.note_refusal(error)
            context.failure = error.code
            if isinstance(error, Unauthorized):
                context.extra_headers.append(_CHALLENGE)
            if context.status is None:
                if isinstance(error, (Overloaded, Expired, RateLimited)):  # a client that retries at once is delayed
                    context.connection.note_refusal("capacity" if isinstance(error, Overloaded) else "deadline")
                await context.answer(failure_response(scope["path"], error))
        except asyncio.CancelledError:
            if context.status is not None or not self._readiness.is_draining:
                raise
            context.lingers = False
            await context.answer(failure_response(scope["path"], _given_up()))
        except Exception:
            context.failure = INTERNAL_ERROR_CODE
            log.exception("a request to %s failed", route)
            if context.status is not None:
                raise  # the response has begun, so the HTTP server closes the connection
            await context.answer(internal_failure(scope["path"]))

    def _admit(self, method: str, context: RequestContext, route: str) -> None:
        owner = self._access.check_key(route, context.headers)
        context.check_length()
        limit = self._bodies.get(route)
        if limit is not None and method in limit.methods:  # the router answers all other requests
            context.expect_body(limit)
            self._readiness.check_started()
            context.read_deadline()
            self._check_capacity(context.expires_at)
            if self._rate_limits is not None:  # last, so that a refusal for another reason costs no token
                self._rate_limits.take(owner, context.client)


def _peer(scope: Scope) -> str | None:
    client = scope.get("client")
    return None if client is None else str(client[0])


def _given_up() -> NotReady:
    return NotReady("The server stopped before this request was complete.", code="draining", retry_after_s=5)
