"""Refusals of requests while the queue is full, made from the request's head and prepared parts.

A small model classifies an image in less than a millisecond, and a refusal must cost much less. It therefore has no
ASGI scope, no task and no log line of its own. All checks that precede the capacity check in `admission.py` precede it
here. A request that fails one of them is passed to `Admission`, which sends the exact error.
"""

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from service.access_control.access_policy import Access
from service.errors import Overloaded, ServiceError, queue_full
from service.http.access_log import AccessLog
from service.http.error_format import failure_response
from service.http.readiness import Readiness
from service.http.request_context import is_length, is_timeout_ms
from service.http.route_labels import RouteNames
from service.http.trace_headers import request_id, traceparent
from service.http.upload_limits import BodyLimit
from service.telemetry.metrics import Metrics

_LOG_INTERVAL_S = 1.0
_FIXED = b"x-content-type-options: nosniff\r\ncache-control: no-store\r\n"


class EarlyRefusals:
    """Refuses POST requests to the inference routes while the queue is full.

    The metrics count each refusal. The log has one line a second with the number of them.
    """

    def __init__(
        self,
        *,
        retry_after_s: Callable[[], int],
        readiness: Readiness,
        routes: RouteNames,
        bodies: Mapping[str, BodyLimit],
        access: Access,
        metrics: Metrics,
        request_log: AccessLog | None = None,
    ) -> None:
        self._retry_after_s = retry_after_s
        self._readiness = readiness
        self._bodies = bodies
        self._access = access
        self._metrics = metrics
        self._request_log = request_log
        self._route_of = functools.lru_cache(maxsize=256)(functools.partial(_route_of, routes, bodies))
        self._parts = functools.lru_cache(maxsize=64)(_parts)
        self._unlogged: Counter[str] = Counter()

    def response(
        self, target: bytes, headers: Mapping[bytes, bytes], *, closes: bool, fixed_lines: bytes
    ) -> bytes | None:
        """Return the whole HTTP response to a complete POST request, or None if `Admission` has to answer it.

        `headers` has lower-case names. `fixed_lines` are the header lines of every response of the server.
        """
        route = self._route_of(target)
        if route is None or not self._is_admissible(route, headers):
            return None
        self._metrics.note_answer(route, "POST", Overloaded.status)
        self._metrics.note_refusal_code(Overloaded.code)
        self._note(route)
        head, body = self._parts(route, self._retry_after_s())
        lines = [head, fixed_lines, b"x-request-id: ", request_id(headers.get(b"x-request-id")), b"\r\n"]
        if (trace := traceparent(headers.get(b"traceparent"))) is not None:
            lines += (b"traceparent: ", trace, b"\r\n")
        lines += [b"%b: %b\r\n" % header for header in self._access.cors_headers(headers)]
        if closes:
            lines.append(b"connection: close\r\n")
        lines += (b"\r\n", body)
        return b"".join(lines)

    def _is_admissible(self, route: str, headers: Mapping[bytes, bytes]) -> bool:
        """Return whether the request passes all checks that precede the capacity check."""
        limit = self._bodies[route]
        length, timeout = headers.get(b"content-length"), headers.get(b"x-request-timeout-ms")
        if not self._readiness.is_accepting or length is None or not is_length(length):
            return False
        if int(length) > limit.most_bytes:
            return False
        if timeout is not None and not is_timeout_ms(timeout):
            return False
        try:
            self._access.check_host(route, headers)
            self._access.check_key(route, headers)
        except ServiceError:
            return False
        return True

    def _note(self, route: str) -> None:
        if not self._unlogged:
            asyncio.get_running_loop().call_later(_LOG_INTERVAL_S, self.write_log)
        self._unlogged[route] += 1

    def write_log(self) -> None:
        """Write one line for each route with refusals that are not logged yet."""
        for route, count in self._unlogged.items():
            if self._request_log is not None:
                self._request_log.log_refusals(route, count, Overloaded.status, Overloaded.code)
        self._unlogged.clear()


def _route_of(routes: RouteNames, bodies: Mapping[str, BodyLimit], target: bytes) -> str | None:
    """Return the inference route of a request target, or None for any other target."""
    route = routes.name_of(unquote(target.partition(b"?")[0].decode("latin-1")))
    return route if route in bodies else None


def _parts(route: str, retry_s: int) -> tuple[bytes, bytes]:
    """Return the head up to the lines that differ for each request, and the body."""
    response = failure_response(route, queue_full(retry_s))
    lines = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
    return b"HTTP/1.1 503 Service Unavailable\r\n" + lines + _FIXED, bytes(response.body)
