"""The door: decides from a request's headers whether it comes in, before a byte of its body is read.

Pure ASGI around all routes. It also sees every answer leave, so here failures become problem documents, and here
answers are counted.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.batching.jobs import IsAwaited
from service.errors import Expired, NotReady, Overloaded, ServiceError, Unauthorized
from service.http.access_log import AccessLog
from service.http.access_policy import PREFLIGHT_HEADERS, Access
from service.http.error_format import failure_response, internal_failure
from service.http.error_responses import INTERNAL_ERROR_CODE
from service.http.readiness import Readiness
from service.http.request_context import BodyLimit, RequestContext, UploadMemory
from service.http.route_labels import RouteNames
from service.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_ANYBODY = Access()
_CHALLENGE = (b"www-authenticate", b'Bearer realm="resnet-service"')


class Admission:
    """Wraps an ASGI app, which finds the `RequestContext` in its scope.

    A POST to one of `endpoints` goes straight there: a router's search costs more than all else on its way. Only a
    request to a route of `bodies`, by a method of its limit, may have a body. `check_capacity` raises if one that
    expires at the given moment would be refused after its upload.
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
        is_in_the_way: Callable[[IsAwaited], bool] = lambda _: False,
        upload_memory: UploadMemory,
        access: Access = _ANYBODY,
        request_log: AccessLog | None = None,
    ) -> None:
        self._app = app
        self._readiness = readiness
        self._metrics = metrics
        self._routes = routes
        self._bodies = bodies
        self._endpoints = endpoints
        self._check_capacity = check_capacity
        self._is_in_the_way = is_in_the_way
        self._memory = upload_memory
        self._access = access
        self._request_log = request_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = self._routes.name_of(scope["path"])
        is_last = self._readiness.is_draining
        exchange = RequestContext(
            scope, receive, send, self._memory, is_last=is_last, is_in_the_way=self._is_in_the_way
        )
        scope["exchange"] = exchange
        exchange.connection.attach(exchange.is_in_the_way)
        exchange.client = self._access.client_of(_peer(scope), exchange.headers)
        exchange.extra_headers += self._access.cors_headers(exchange.headers)
        self._metrics.in_flight += 1
        try:
            await self._answer(scope, exchange, route)
        finally:
            self._metrics.in_flight -= 1
            # Else they would hold each other until a search for garbage, which takes milliseconds.
            scope.pop("exchange", None)
            exchange.connection.detach()
            exchange.forget_body()
            if self._request_log is not None:
                self._request_log.note(exchange, scope["method"], route)
            if exchange.status is not None:
                self._metrics.note_answer(route, scope["method"], exchange.status)

    async def _answer(self, scope: Scope, exchange: RequestContext, route: str) -> None:
        try:
            self._access.check_host(route, exchange.headers)
            if self._access.is_preflight(scope["method"], exchange.headers):
                exchange.extra_headers += PREFLIGHT_HEADERS
                await exchange.answer(Response(status_code=204))
                return
            self._admit(scope["method"], exchange, route)
            app = self._endpoints.get(route, self._app) if scope["method"] == "POST" else self._app
            await app(scope, exchange.receive, exchange.send)
        except ServiceError as error:
            self._metrics.note_refusal(error)
            exchange.failure = error.code
            if isinstance(error, Unauthorized):
                exchange.extra_headers.append(_CHALLENGE)
            if exchange.status is None:
                if isinstance(error, (Overloaded, Expired)):  # a client that repeats it at once is delayed
                    exchange.connection.note_refusal("capacity" if isinstance(error, Overloaded) else "deadline")
                await exchange.answer(failure_response(scope["path"], error))
        except asyncio.CancelledError:
            if exchange.status is not None or not self._readiness.is_draining:
                raise
            exchange.lingers = False
            await exchange.answer(failure_response(scope["path"], _given_up()))
        except Exception:
            exchange.failure = INTERNAL_ERROR_CODE
            log.exception("a request to %s failed", route)
            if exchange.status is not None:
                raise  # half an answer cannot be taken back: the HTTP server closes the connection
            await exchange.answer(internal_failure(scope["path"]))

    def _admit(self, method: str, exchange: RequestContext, route: str) -> None:
        self._access.check_key(route, exchange.headers)
        exchange.check_length()
        limit = self._bodies.get(route)
        if limit is not None and method in limit.methods:  # all others: the router knows best
            exchange.expect_body(limit)
            self._readiness.check_started()
            exchange.read_deadline()
            self._check_capacity(exchange.expires_at)


def _peer(scope: Scope) -> str | None:
    client = scope.get("client")
    return None if client is None else str(client[0])


def _given_up() -> NotReady:
    return NotReady("The server stopped before this request was complete.", code="draining", retry_after_s=5)
