"""Failures as HTTP responses of type `application/problem+json` (RFC 9457)."""

import http
from collections.abc import Mapping

import orjson
from starlette.responses import Response

from service.errors import ServiceError

MEDIA_TYPE = "application/problem+json"
INTERNAL_ERROR_CODE = "internal_error"


def problem_response(error: ServiceError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response to an expected failure."""
    return problem(error.status, error.code, error.title, error.message, {**retry_header(error), **(headers or {})})


def retry_header(error: ServiceError) -> dict[str, str]:
    """Return the Retry-After header, or no header if the failure has no retry time."""
    return {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}


def problem(status: int, code: str, title: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return a response with these fields; its `type` is a link to the error's description in /docs."""
    return Response(problem_body(status, code, title, detail), status, headers, MEDIA_TYPE)


def problem_body(status: int, code: str, title: str, detail: str) -> bytes:
    """Return the JSON document with a line end, so that a shell's prompt starts on a new line."""
    return orjson.dumps(problem_document(status, code, title, detail), option=orjson.OPT_APPEND_NEWLINE)


def problem_document(status: int, code: str, title: str, detail: str) -> dict[str, str | int]:
    """Return the problem document as a dictionary."""
    return {"type": f"/docs#{code}", "title": title, "status": status, "detail": detail, "code": code}


def internal_error() -> Response:
    """Return the response to an unexpected failure, without details; the log has the traceback."""
    title = http.HTTPStatus.INTERNAL_SERVER_ERROR.phrase
    return problem(500, INTERNAL_ERROR_CODE, title, "The server failed on this request; its log has the cause.")
