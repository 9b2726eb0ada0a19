"""The OpenAPI document: FastAPI's routes, the plain ASGI routes, and all error responses."""

from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

from service.access_control.access_policy import is_health
from service.api.endpoints import batch, classify, embed, explain
from service.api.openapi.compatibility_paths import COMPATIBILITY_SCHEMAS, compatibility_paths
from service.api.openapi.examples import EXAMPLES
from service.api.openapi.failures import Failure, failures_of_post
from service.api.openapi.model_schemas import model_schemas
from service.api.openapi.request_bodies import MANY_IMAGES, ONE_IMAGE
from service.api.openapi.schemas import ANSWER_HEADERS, BODIES, TRACING_HEADERS, ref, schemas_of
from service.api.openapi.v2_paths import v2_paths
from service.api.openapi.v2_schemas import V2_BODIES
from service.api.parsing.parameters import DEFAULT_TOP_K
from service.http.error_responses import MEDIA_TYPE, problem_document
from service.http.request_context import MOST_TIMEOUT_MS
from service.inference.class_activation import LONGEST_SIDE
from service.inference.classifier import LARGEST_TOP_K

_ONE_IMAGE = (
    "Send one JPEG, PNG or WebP file, as a form's field `file` or `image`, or as the body itself. The format is "
    "detected from the bytes; the content type of a body that is not a form is ignored. Unknown query parameters are "
    "ignored; the last value of a repeated one counts. Parameters may also be fields of the form. A misspelled "
    "parameter is rejected."
)
_DESCRIPTIONS = {
    classify.PATH: _ONE_IMAGE,
    batch.PATH: (
        "Send 1 to 64 JPEG, PNG or WebP files in one form, or JSON with base64. The response has an entry for each "
        "image, in order: its labels or a problem. Images are queued, batched and limited like those of /classify. On "
        "an otherwise idle server a batch is never refused."
    ),
    explain.PATH: (
        f"{_ONE_IMAGE} The response has a class activation map for each of the five best labels: a grid of the "
        "evidence for the label in each cell, and a PNG with one pixel for each cell, to be scaled over the part of "
        "the image in `crop`. With `Accept: image/png` the response is the whole upright image, its longer side from "
        f"{LONGEST_SIDE // 2} to {LONGEST_SIDE} pixels, with the map of one label over the part that the model saw: "
        "the best label, or the one in `label` or `index`. The rest of the image is darkened."
    ),
    embed.PATH: (
        f"{_ONE_IMAGE} The response has the network's pooled features: as JSON, or with `Accept: "
        "application/octet-stream` as raw little-endian float32."
    ),
}
_SUMMARIES = {
    classify.PATH: "Classify an image",
    batch.PATH: "Classify up to 64 images",
    explain.PATH: "Explain labels by heat maps",
    embed.PATH: "Compute an embedding of an image",
}


def _query(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": schema}


_TOP_K = _query(
    "top_k",
    "The number of labels to return, at most the number of classes.",
    {"type": "integer", "minimum": 1, "maximum": LARGEST_TOP_K, "default": DEFAULT_TOP_K},
)
_FURTHER_PARAMETERS = {
    classify.PATH: [_TOP_K],
    batch.PATH: [_TOP_K],
    explain.PATH: [
        _query("label", "Explain only this label; not together with `index`.", {"type": "string"}),
        _query("index", "Explain only the class of this index, from 0.", {"type": "integer", "minimum": 0}),
    ],
    embed.PATH: [_query("normalize", "Scale the embedding to length 1.", {"type": "boolean", "default": False})],
}
_PARAMETERS = [
    _query("model", "The model, as `name` or `name:version`; by default the default model.", {"type": "string"}),
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "The deadline of the response in ms. A request that would miss it is refused at once.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_TIMEOUT_MS},
    },
    *TRACING_HEADERS,
]
_ANSWERS = {classify.PATH: "Classification", batch.PATH: "Batch", explain.PATH: "Explanation", embed.PATH: "Embedding"}
_OTHER_FORMATS = {explain.PATH: explain.PNG, embed.PATH: embed.BINARY}
_KEYS = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-Api-Key"},
}


class DocumentedApp(FastAPI):
    """A FastAPI app that documents the plain ASGI routes too and skips FastAPI's default middleware."""

    wants_keys = False

    def build_middleware_stack(self) -> ASGIApp:
        """Return the routes within the added middleware only.

        FastAPI's default middleware costs each request 20 µs. It turns failures into responses, as `Admission` does,
        and exports telemetry.
        """
        app: ASGIApp = ExceptionMiddleware(AsyncExitStackMiddleware(self.router), handlers=self.exception_handlers)
        for layer in reversed(self.user_middleware):
            app = layer.cls(app, *layer.args, **layer.kwargs)
        return app

    def openapi(self) -> dict[str, Any]:
        """Return the whole document."""
        if self.openapi_schema is None:
            document = super().openapi()
            plain = {path: {"post": _operation(path)} for path in _ANSWERS}
            document["paths"] = {**plain, **{path: _without_422(item) for path, item in document["paths"].items()}}
            document["paths"] |= v2_paths() | compatibility_paths()
            components = document.setdefault("components", {})
            components["schemas"] = (
                schemas_of(*BODIES) | model_schemas() | schemas_of(*V2_BODIES) | COMPATIBILITY_SCHEMAS
            )
            if self.wants_keys:
                components["securitySchemes"] = _KEYS
                document["security"] = [{name: []} for name in _KEYS]
                for path in filter(is_health, document["paths"]):
                    document["paths"][path]["get"]["security"] = []
            self.openapi_schema = document
        return self.openapi_schema


def documented(failures: dict[int, Failure]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI response objects of failures, by status."""
    return {status: _failure(status, failure) for status, failure in failures.items()}


def _without_422(item: dict[str, Any]) -> dict[str, Any]:
    """Remove the 422 that FastAPI documents for every parameter; this server returns 400 or 404 instead."""
    for operation in item.values():
        operation["responses"].pop("422", None)
        operation["responses"]["200"].setdefault("headers", ANSWER_HEADERS)
    return item


def _operation(path: str) -> dict[str, Any]:
    return {
        "tags": ["images"],
        "summary": _SUMMARIES[path],
        "description": _DESCRIPTIONS[path],
        "operationId": path.strip("/").replace("/", "_"),
        "parameters": [*_FURTHER_PARAMETERS[path], *_PARAMETERS],
        "requestBody": {"required": True, "content": MANY_IMAGES if path == batch.PATH else ONE_IMAGE},
        "responses": {"200": _success(path)}
        | {str(status): answer for status, answer in documented(failures_of_post(path)).items()},
    }


def _success(path: str) -> dict[str, Any]:
    name = _ANSWERS[path]
    schema = {"schema": ref(name), "example": EXAMPLES[name]}
    content: dict[str, Any] = {"application/json": schema}
    if path in _OTHER_FORMATS:
        content[_OTHER_FORMATS[path]] = {"schema": {"type": "string", "format": "binary"}}
    return {"description": "The result.", "headers": ANSWER_HEADERS, "content": content}


def _failure(status: int, failure: Failure) -> dict[str, Any]:
    examples = {
        code: {"value": problem_document(status, code, title, detail)}
        for code, (title, detail) in failure.codes.items()
    }
    content = {MEDIA_TYPE: {"schema": ref("Problem"), "examples": examples}}
    answer: dict[str, Any] = {"description": f"{failure.meaning} Codes: {', '.join(examples)}.", "content": content}
    headers = {429: "Retry-After", 503: "Retry-After", 405: "Allow", 401: "WWW-Authenticate"}
    if status in headers:
        answer["headers"] = {headers[status]: {"schema": {"type": "integer" if status == 503 else "string"}}}
    return answer
