"""Failures in the language of whoever asked: `{"error": …}` under /v2 (Open Inference Protocol), RFC 9457 elsewhere."""

from collections.abc import Iterable, Mapping

import orjson
from starlette.responses import Response

from service.errors import EngineFailed, MethodNotAllowed, NotFound, ServiceError
from service.problem import internal_error, problem_response, retry_header

# The protocol's clients know no 415 or 422: what is wrong with the input is an invalid argument.
_STATUS = {415: 400, 422: 400}


def is_v2(path: str) -> bool:
    """Whether a path belongs to the Open Inference Protocol."""
    return path == "/v2" or path.startswith("/v2/")


def failure_response(path: str, error: ServiceError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer for a failure that was expected."""
    if not is_v2(path):
        return problem_response(error, headers)
    status = _STATUS.get(error.status, error.status)
    return Response(v2_error(error.message), status, {**retry_header(error), **(headers or {})}, "application/json")


def not_found(path: str) -> Response:
    """Return the answer for a path that is not there."""
    return failure_response(path, NotFound("There is nothing at this path; /docs shows what there is."))


def method_not_allowed(path: str, methods: Iterable[str]) -> Response:
    """Return the answer for a path that has only these methods."""
    error = MethodNotAllowed("This path does not have that method; Allow names those it has.")
    return failure_response(path, error, {"allow": ", ".join(sorted(methods))})


def internal_failure(path: str) -> Response:
    """Return the answer for a failure that nobody expected."""
    if not is_v2(path):
        return internal_error()
    return failure_response(path, EngineFailed("The server failed on this request; its log has the cause."))


def v2_error(message: str) -> bytes:
    """Return the JSON document alone."""
    return orjson.dumps({"error": message})
