"""What the OpenAPI document says of POST /classify, which is not a FastAPI route, and of every failure."""

from typing import Any

from fastapi import FastAPI

from service.api.classify import PATH
from service.api.request import DEFAULT_TOP_K
from service.classifier import LARGEST_TOP_K
from service.exchange import MOST_TIMEOUT_MS
from service.problem import MEDIA_TYPE

_DESCRIPTION = (
    "Send one JPEG, PNG or WebP file, as a form's field `file` or `image`, or as the body itself. A body that is no "
    "form is accepted whatever its content type says: its bytes decide what it is. Unknown query parameters are "
    "ignored; of a repeated one the last counts."
)
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FORM = {
    "schema": {
        "type": "object",
        "properties": {
            "file": {"type": "string", "format": "binary", "description": "The picture."},
            "image": {"type": "string", "format": "binary", "description": "Another name for `file`; send one."},
        },
    }
}
# Status → what it means and the codes that come with it.
FAILURES: dict[int, tuple[str, tuple[str, ...]]] = {
    400: (
        "The request is malformed.",
        (
            "bad_top_k",
            "bad_query",
            "bad_multipart",
            "no_file",
            "several_files",
            "bad_content_length",
            "bad_timeout",
            "bad_request",
            "bad_http",
        ),
    ),
    404: ("There is no such path or model.", ("not_found", "model_not_found")),
    405: ("The path exists, the method does not; Allow names those that do.", ("method_not_allowed",)),
    408: ("The request did not arrive in time.", ("request_timeout",)),
    413: ("More bytes than the limit, usually 20 MiB.", ("too_large",)),
    415: ("Not a JPEG, PNG or WebP file by its bytes, or encoded.", ("not_an_image", "unsupported_encoding")),
    422: ("The picture cannot be decoded, or has too many pixels or scans.", ("bad_image",)),
    431: ("The path and the headers together have more than 64 KiB.", ("header_too_large",)),
    500: ("The server or its model failed.", ("engine_failed", "internal_error")),
    503: (
        "Not now: too much is waiting, or the server starts or stops. Retry-After says when to try again.",
        ("overloaded", "expired", "cannot_make_it", "client_left", "not_ready", "draining"),
    ),
}
_ANSWER_SCHEMA = {
    "type": "object",
    "required": ["model", "predictions", "image", "timings_ms"],
    "properties": {
        "model": {
            "type": "object",
            "properties": {name: {"type": "string"} for name in ("name", "version", "sha256", "provider", "precision")},
        },
        "predictions": {
            "type": "array",
            "description": "The best labels, best first.",
            "items": {
                "type": "object",
                "properties": {
                    "label": {"type": "string"},
                    "index": {"type": "integer"},
                    "probability": {"type": "number", "minimum": 0, "maximum": 1},
                },
            },
        },
        "image": {
            "type": "object",
            "description": "What the picture was; width and height as displayed.",
            "properties": {
                "format": {"type": "string", "enum": ["JPEG", "PNG", "WEBP"]},
                "width": {"type": "integer"},
                "height": {"type": "integer"},
            },
        },
        "timings_ms": {
            "type": "object",
            "properties": {step: {"type": "number"} for step in ("decode", "queue", "inference")},
        },
    },
}
_ANSWER_EXAMPLE = {
    "model": {
        "name": "cifar10-resnet20",
        "version": "1",
        "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "provider": "CPUExecutionProvider",
        "precision": "fp32",
    },
    "predictions": [
        {"label": "cat", "index": 3, "probability": 0.934512},
        {"label": "dog", "index": 5, "probability": 0.051208},
    ],
    "image": {"format": "JPEG", "width": 500, "height": 375},
    "timings_ms": {"decode": 1.9, "queue": 0.0, "inference": 0.5},
}
_PROBLEM_SCHEMA = {
    "type": "object",
    "description": "A failure (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "For people; may change."},
        "code": {"type": "string", "description": "For programs; stays."},
    },
}
_PARAMETERS = [
    {
        "name": "top_k",
        "in": "query",
        "description": "How many labels to answer, at most as many as the model has.",
        "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_TOP_K, "default": DEFAULT_TOP_K},
    },
    {
        "name": "model",
        "in": "query",
        "description": "The model, as `name` or `name:version`; the default one if left out.",
        "schema": {"type": "string"},
    },
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "How long the answer is worth waiting for: what cannot make it is refused at once.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_TIMEOUT_MS},
    },
]
_PROBLEM_CONTENT = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}


class DocumentedApp(FastAPI):
    """FastAPI, with the plain routes in its OpenAPI document as well."""

    def openapi(self) -> dict[str, Any]:
        """Return the whole document."""
        if self.openapi_schema is None:
            document = super().openapi()
            document["paths"] = {PATH: {"post": _classify_operation()}, **document["paths"]}
            document.setdefault("components", {}).setdefault("schemas", {}).update(
                Classification=_ANSWER_SCHEMA, Problem=_PROBLEM_SCHEMA
            )
            ready = document["paths"]["/health/ready"]["get"]["responses"]
            ready["503"] = {"description": "Starting, or about to stop.", "content": _PROBLEM_CONTENT}
            self.openapi_schema = document
        return self.openapi_schema


def _classify_operation() -> dict[str, Any]:
    return {
        "tags": ["classify"],
        "summary": "Classify a picture",
        "description": _DESCRIPTION,
        "operationId": "classify",
        "parameters": _PARAMETERS,
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": _FORM,
                **{kind: _BINARY for kind in ("image/jpeg", "image/png", "image/webp", "application/octet-stream")},
            },
        },
        "responses": {"200": _success()} | {str(status): _failure(status) for status in FAILURES},
    }


def _success() -> dict[str, Any]:
    content = {"schema": {"$ref": "#/components/schemas/Classification"}, "example": _ANSWER_EXAMPLE}
    return {"description": "The best labels.", "content": {"application/json": content}}


def _failure(status: int) -> dict[str, Any]:
    text, codes = FAILURES[status]
    answer: dict[str, Any] = {"description": f"{text} Codes: {', '.join(codes)}.", "content": _PROBLEM_CONTENT}
    if status == 503:
        answer["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return answer
