"""A failure as an HTTP answer: `application/problem+json` (RFC 9457)."""

import http
from collections.abc import Iterable

import orjson
from starlette.responses import Response

from service.errors import MethodNotAllowed, NotFound, ServiceError

MEDIA_TYPE = "application/problem+json"
INTERNAL_ERROR_CODE = "internal_error"


def problem_response(error: ServiceError) -> Response:
    """Return the answer for a failure that was expected."""
    headers = {} if error.retry_after_s is None else {"retry-after": str(error.retry_after_s)}
    return problem(error.status, error.code, error.title, error.message, headers)


def problem(status: int, code: str, title: str, detail: str, headers: dict[str, str] | None = None) -> Response:
    """Return an answer with these fields. `type` leads to the explanation that this server's /docs has."""
    return Response(problem_body(status, code, title, detail), status, headers, MEDIA_TYPE)


def problem_body(status: int, code: str, title: str, detail: str) -> bytes:
    """Return the JSON document alone."""
    return orjson.dumps(problem_document(status, code, title, detail))


def problem_document(status: int, code: str, title: str, detail: str) -> dict[str, str | int]:
    """Return the document before it is written."""
    return {"type": f"/docs#{code}", "title": title, "status": status, "detail": detail, "code": code}


def not_found() -> Response:
    """Return the answer for a path that is not there."""
    return problem_response(NotFound("There is nothing at this path; /docs shows what there is."))


def method_not_allowed(methods: Iterable[str]) -> Response:
    """Return the answer for a path that has only these methods."""
    text = "This path does not have that method; Allow names those it has."
    allow = {"allow": ", ".join(sorted(methods))}
    return problem(MethodNotAllowed.status, MethodNotAllowed.code, MethodNotAllowed.title, text, allow)


def internal_error() -> Response:
    """Return the answer for a failure that nobody expected; the log has it, the client gets no details."""
    title = http.HTTPStatus.INTERNAL_SERVER_ERROR.phrase
    return problem(500, INTERNAL_ERROR_CODE, title, "The server failed on this request; its log has the cause.")
