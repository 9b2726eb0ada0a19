"""Error responses in the format of the path: `{"error": …}` under /v2 (Open Inference Protocol), else RFC 9457.

The paths of other services' clients have the formats of `client_errors.py`.
"""

from collections.abc import Iterable, Mapping

import orjson
from starlette.responses import Response

from service.errors import EngineFailed, MethodNotAllowed, NotFound, ServiceError
from service.http.client_errors import client_error
from service.http.error_responses import INTERNAL_ERROR_CODE, internal_error, problem_response, retry_header

# Clients of the protocol do not know 415 or 422; an invalid input is 400 for them.
_STATUS = {415: 400, 422: 400}
_CLASSIFY = "send images to POST /classify"
_HEALTH = "health is at /health/live and /health/ready of the public port"
# Hints for wrong paths that clients often request; in lower case.
_HINTS = {
    **dict.fromkeys(("/predict", "/predictions", "/classification", "/inference", "/infer", "/upload"), _CLASSIFY),
    **dict.fromkeys(("/api/classify", "/api/predict", "/v1/classify", "/v1/predict", "/invocations"), _CLASSIFY),
    **{path: f"write {path}" for path in ("/classify", "/classify/batch", "/explain", "/embed", "/models", "/docs")},
    **dict.fromkeys(("/health", "/healthz", "/livez", "/readyz", "/live", "/ready", "/status"), _HEALTH),
    "/batch": "send several images to POST /classify/batch",
    "/embeddings": "send images to POST /embed",
    "/metrics": "metrics are on the admin port, at the same path",
    "/index.html": "the page is at /",
    "/swagger": "the documentation is at /docs, the OpenAPI document at /openapi.json",
    "/redoc": "the documentation is at /docs, the OpenAPI document at /openapi.json",
}
_IMAGE = "; POST an image, for example with curl -F file=@photo.jpg, or use the page at /"
_OTHER_METHODS = {
    "/": "; send images to POST /classify",
    **dict.fromkeys(("/classify", "/explain", "/embed"), _IMAGE),
    "/classify/batch": "; POST up to 64 images, for example with curl -F files=@1.jpg -F files=@2.jpg",
}


def is_v2(path: str) -> bool:
    """Return whether a path belongs to the Open Inference Protocol."""
    return path == "/v2" or path.startswith("/v2/")


def failure_response(path: str, error: ServiceError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response to an expected failure, in the format of the path."""
    status, body = error.status, client_error(path, error.status, error.code, error.message)
    if is_v2(path):
        status, body = _STATUS.get(error.status, error.status), v2_error(error.message)
    if body is None:
        return problem_response(error, headers)
    return Response(body, status, {**retry_header(error), **(headers or {})}, "application/json")


def not_found(path: str) -> Response:
    """Return the response to an unknown path, with a hint at the path that was probably intended."""
    hint = _HINTS.get(path.rstrip("/").lower(), "see /docs for the available endpoints")
    return failure_response(path, NotFound(f"No endpoint has this path; {hint}."))


def method_not_allowed(path: str, methods: Iterable[str]) -> Response:
    """Return the response to a method that the path does not support; `methods` are the supported ones."""
    allowed = ", ".join(sorted(methods))
    hint = _OTHER_METHODS.get(path, "")
    return failure_response(path, MethodNotAllowed(f"This path supports only {allowed}{hint}."), {"allow": allowed})


def internal_failure(path: str) -> Response:
    """Return the response to an unexpected failure."""
    error = EngineFailed("The server failed on this request; its log has the cause.", code=INTERNAL_ERROR_CODE)
    if not is_v2(path) and client_error(path, error.status, error.code, error.message) is None:
        return internal_error()
    return failure_response(path, error)


def v2_error(message: str) -> bytes:
    """Return the JSON document of an error of the Open Inference Protocol."""
    return orjson.dumps({"error": message}, option=orjson.OPT_APPEND_NEWLINE)
