"""A failure as an HTTP answer: `application/problem+json` (RFC 9457)."""

import http
from collections.abc import Mapping

import orjson
from starlette.responses import Response

from service.errors import ServiceError

MEDIA_TYPE = "application/problem+json"
INTERNAL_ERROR_CODE = "internal_error"


def problem_response(error: ServiceError, headers: Mapping[str, str] | None = None) -> Response:
    """Return the answer for a failure that was expected."""
    return problem(error.status, error.code, error.title, error.message, {**retry_header(error), **(headers or {})})


def retry_header(error: ServiceError) -> dict[str, str]:
    """Return the header that says when to try again, if the failure knows."""
    return {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}


def problem(status: int, code: str, title: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return an answer with these fields. `type` leads to the explanation that this server's /docs has."""
    return Response(problem_body(status, code, title, detail), status, headers, MEDIA_TYPE)


def problem_body(status: int, code: str, title: str, detail: str) -> bytes:
    """Return the JSON document alone, with a line end: what a shell says next stands on a line of its own."""
    return orjson.dumps(problem_document(status, code, title, detail), option=orjson.OPT_APPEND_NEWLINE)


def problem_document(status: int, code: str, title: str, detail: str) -> dict[str, str | int]:
    """Return the document before it is written."""
    return {"type": f"/docs#{code}", "title": title, "status": status, "detail": detail, "code": code}


def internal_error() -> Response:
    """Return the answer for a failure that nobody expected; the log has it, the client gets no details."""
    title = http.HTTPStatus.INTERNAL_SERVER_ERROR.phrase
    return problem(500, INTERNAL_ERROR_CODE, title, "The server failed on this request; its log has the cause.")
