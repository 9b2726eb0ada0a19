"""The OpenAPI document: what FastAPI says of its own routes, the routes that are not FastAPI's, and every failure."""

from typing import Any

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

from service.api.endpoints import batch, classify, embed, explain
from service.api.openapi.compatibility_paths import COMPATIBILITY_SCHEMAS, compatibility_paths
from service.api.openapi.failures import Failure, failures_of_post
from service.api.openapi.model_schemas import model_schemas
from service.api.openapi.schemas import (
    ANSWER_HEADERS,
    BODIES,
    EXAMPLES,
    MANY_IMAGES,
    ONE_IMAGE,
    TRACING_HEADERS,
    ref,
    schemas_of,
)
from service.api.openapi.v2_paths import v2_paths
from service.api.openapi.v2_schemas import V2_BODIES
from service.api.parsing.parameters import DEFAULT_TOP_K
from service.http.access_policy import is_health
from service.http.error_responses import MEDIA_TYPE, problem_document
from service.http.request_context import MOST_TIMEOUT_MS
from service.inference.class_activation import LONGEST_SIDE
from service.inference.classifier import LARGEST_TOP_K

_ONE_IMAGE = (
    "Send one JPEG, PNG or WebP file, as a form's field `file` or `image`, or as the body itself. A body that is no "
    "form is accepted whatever its content type says: its bytes decide what it is. Unknown query parameters are "
    "ignored; of a repeated one the last counts. Parameters may be fields of the form instead, and a name that is "
    "nearly one of theirs is refused."
)
_DESCRIPTIONS = {
    classify.PATH: _ONE_IMAGE,
    batch.PATH: (
        "Send 1 to 64 JPEG, PNG or WebP files in one form, or JSON with base64. The answer has an entry for each, in "
        "order: its labels, or a problem of its own. Each waits, is batched and is limited like one sent to /classify; "
        "a batch that is alone is never refused."
    ),
    explain.PATH: (
        f"{_ONE_IMAGE} The answer has a class-activation map for each of the five best labels: a grid of what speaks "
        "for the label at each place, and the same as a PNG of a pixel for each place, to be scaled over the part of "
        "the image that `crop` names. With `Accept: image/png` it is the whole image, upright, its longer side from "
        f"{LONGEST_SIDE // 2} to {LONGEST_SIDE} pixels, with the map of one label over the part that the network saw: "
        "the best, or the one that `label` or `index` names. The rest of the image is dim."
    ),
    embed.PATH: (
        f"{_ONE_IMAGE} The answer is the network's pooled features: as JSON, or with `Accept: "
        "application/octet-stream` as little-endian float32 and nothing else."
    ),
}
_SUMMARIES = {
    classify.PATH: "Classify an image",
    batch.PATH: "Classify up to 64 images",
    explain.PATH: "Show where the network saw a label",
    embed.PATH: "Turn an image into an embedding",
}


def _query(name: str, text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": text, "schema": schema}


_TOP_K = _query(
    "top_k",
    "How many labels to answer, at most as many as the model has.",
    {"type": "integer", "minimum": 1, "maximum": LARGEST_TOP_K, "default": DEFAULT_TOP_K},
)
_FURTHER_PARAMETERS = {
    classify.PATH: [_TOP_K],
    batch.PATH: [_TOP_K],
    explain.PATH: [
        _query("label", "Explain this label only; not together with `index`.", {"type": "string"}),
        _query("index", "Explain the label of this number only, counted from 0.", {"type": "integer", "minimum": 0}),
    ],
    embed.PATH: [_query("normalize", "Make the embedding's length 1.", {"type": "boolean", "default": False})],
}
_PARAMETERS = [
    _query("model", "The model, as `name` or `name:version`; the default one if left out.", {"type": "string"}),
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "How long the answer is worth waiting for: what cannot make it is refused at once.",
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
    """FastAPI, with the plain routes in its OpenAPI document as well, and no layers that nobody asked for."""

    wants_keys = False

    def build_middleware_stack(self) -> ASGIApp:
        """Return the routes within the layers that were added: those that FastAPI adds cost each request 20 µs.

        They turn failures into answers, which the outermost of the added layers does, and export telemetry.
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
    """Return the failures as OpenAPI has them, by status."""
    return {status: _failure(status, failure) for status, failure in failures.items()}


def _without_422(item: dict[str, Any]) -> dict[str, Any]:
    """FastAPI documents a 422 for every parameter; here that is a 400 or 404."""
    for operation in item.values():
        operation["responses"].pop("422", None)
        operation["responses"]["200"].setdefault("headers", ANSWER_HEADERS)
    return item


def _operation(path: str) -> dict[str, Any]:
    return {
        "tags": ["pictures"],
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
    return {"description": "The answer.", "headers": ANSWER_HEADERS, "content": content}


def _failure(status: int, failure: Failure) -> dict[str, Any]:
    examples = {
        code: {"value": problem_document(status, code, title, detail)}
        for code, (title, detail) in failure.codes.items()
    }
    content = {MEDIA_TYPE: {"schema": ref("Problem"), "examples": examples}}
    answer: dict[str, Any] = {"description": f"{failure.meaning} Codes: {', '.join(examples)}.", "content": content}
    headers = {503: "Retry-After", 405: "Allow", 401: "WWW-Authenticate"}
    if status in headers:
        answer["headers"] = {headers[status]: {"schema": {"type": "integer" if status == 503 else "string"}}}
    return answer
