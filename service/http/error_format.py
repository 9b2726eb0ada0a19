"""Failures in the format of the path: `{"error": …}` under /v2 (Open Inference Protocol), RFC 9457 by default.

The paths of other services' clients have the formats of `client_errors`.
"""

from collections.abc import Iterable, Mapping

import orjson
from starlette.responses import Response

from service.errors import EngineFailed, MethodNotAllowed, NotFound, ServiceError
from service.http.client_errors import client_error
from service.http.error_responses import INTERNAL_ERROR_CODE, internal_error, problem_response, retry_header

# The protocol's clients know no 415 or 422: what is wrong with the input is an invalid argument.
_STATUS = {415: 400, 422: 400}
_CLASSIFY = "send images to POST /classify"
_HEALTH = "health is at /health/live and /health/ready of the public port"
# What is asked for in the place of a path, in lower case.
_HINTS = {
    **dict.fromkeys(("/predict", "/predictions", "/classification", "/inference", "/infer", "/upload"), _CLASSIFY),
    **dict.fromkeys(("/api/classify", "/api/predict", "/v1/classify", "/v1/predict", "/invocations"), _CLASSIFY),
    **{path: f"write {path}" for path in ("/classify", "/classify/batch", "/explain", "/embed", "/models", "/docs")},
    **dict.fromkeys(("/health", "/healthz", "/livez", "/readyz", "/live", "/ready", "/status"), _HEALTH),
    "/batch": "send several images to POST /classify/batch",
    "/embeddings": "send images to POST /embed",
    "/metrics": "metrics are on the admin port, at the same path",
    "/index.html": "the page is at /",
    "/swagger": "the documents are at /docs, and for programs at /openapi.json",
    "/redoc": "the documents are at /docs, and for programs at /openapi.json",
}
_IMAGE = ": send an image there, for example with curl -F file=@photo.jpg, or use the page at /"
_OTHER_METHODS = {
    "/": "; send images to POST /classify",
    **dict.fromkeys(("/classify", "/explain", "/embed"), _IMAGE),
    "/classify/batch": ": send up to 64 images there, for example with curl -F files=@1.jpg -F files=@2.jpg",
}


def is_v2(path: str) -> bool:
    """Whether a path belongs to the Open Inference Protocol."""
    return path == "/v2" or path.startswith("/v2/")


def failure_response(path: str, error: ServiceError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer for a failure that was expected."""
    status, body = error.status, client_error(path, error.status, error.code, error.message)
    if is_v2(path):
        status, body = _STATUS.get(error.status, error.status), v2_error(error.message)
    if body is None:
        return problem_response(error, headers)
    return Response(body, status, {**retry_header(error), **(headers or {})}, "application/json")


def not_found(path: str) -> Response:
    """Return the answer for a path that does not exist; for one that is often meant for another, it names that."""
    hint = _HINTS.get(path.rstrip("/").lower(), "/docs shows what there is")
    return failure_response(path, NotFound(f"There is nothing at this path; {hint}."))


def method_not_allowed(path: str, methods: Iterable[str]) -> Response:
    """Return the answer for a path that has only these methods."""
    allowed = ", ".join(sorted(methods))
    hint = _OTHER_METHODS.get(path, "")
    return failure_response(path, MethodNotAllowed(f"This path takes {allowed} only{hint}."), {"allow": allowed})


def internal_failure(path: str) -> Response:
    """Return the answer for a failure that nobody expected."""
    error = EngineFailed("The server failed on this request; its log has the cause.", code=INTERNAL_ERROR_CODE)
    if not is_v2(path) and client_error(path, error.status, error.code, error.message) is None:
        return internal_error()
    return failure_response(path, error)


def v2_error(message: str) -> bytes:
    """Return the JSON document alone."""
    return orjson.dumps({"error": message}, option=orjson.OPT_APPEND_NEWLINE)
