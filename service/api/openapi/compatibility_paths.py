"""The routes for clients of Hugging Face, TorchServe and OpenAI in the OpenAPI document."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from service.api import huggingface, openai, torchserve
from service.api.endpoints.batch import MOST_IMAGES
from service.api.openapi.request_bodies import ONE_IMAGE
from service.api.openapi.schemas import ANSWER_HEADERS, TRACING_HEADERS, ref
from service.api.parsing.parameters import DEFAULT_TOP_K
from service.http.request_context import MOST_TIMEOUT_MS
from service.inference.classifier import LARGEST_TOP_K

_TAG = "clients of other services"
_JSON = "application/json"
_TEXT, _COUNT, _NUMBER = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "number"}
_SCORE = {"type": "number", "minimum": 0, "maximum": 1}
_TOP_K_SCHEMA = {"type": "integer", "minimum": 1, "maximum": LARGEST_TOP_K}
_EXAMPLES = {"model": "cifar10-resnet56", "version": "1"}
# One red pixel, as a PNG.
_IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC"
_MODEL = {"id": "cifar10-resnet56", "object": "model", "created": 1_764_000_000, "owned_by": "resnet-service"}
_MEANINGS = {
    400: "The request is malformed.",
    401: "The server requires an API key, and the request has none that is valid.",
    404: "The path, the model or the version does not exist.",
    405: "The path does not support the method; see the Allow header.",
    408: "The request did not arrive in time: 5 s for the headers, by default 30 s for the body.",
    413: "The body exceeds the limit: by default 20 MiB for an image and 64 MiB for several.",
    415: "The file is not JPEG, PNG or WebP by its bytes, or the body is compressed.",
    422: "The image cannot be decoded, or exceeds the limits on pixels, sides or scans.",
    429: "The client has sent more requests than its rate limit allows; see the Retry-After header.",
    431: "The request line and the headers have more than 64 KiB, or more than 256 lines.",
    500: "The server or its model failed; the server's log has the cause.",
    503: "The server is overloaded, starting or stopping, or cannot meet the deadline of the request; see the "
    "Retry-After header for the seconds until a retry.",
}


def an_object(
    properties: dict[str, Any], *, optional: Mapping[str, Any] = MappingProxyType({}), **further: Any
) -> dict[str, Any]:
    """Return the schema of an object with these required properties and the optional ones."""
    return {"type": "object", "required": list(properties), "properties": {**properties, **optional}, **further}


def a_list(items: dict[str, Any], **further: Any) -> dict[str, Any]:
    """Return the schema of a list."""
    return {"type": "array", "items": items, **further}


_OF_BODIES = (408, 413, 415, 422, 429)
_ERROR_HEADERS = {
    401: ("WWW-Authenticate", "string"),
    405: ("Allow", "string"),
    429: ("Retry-After", "integer"),
    503: ("Retry-After", "integer"),
}

COMPATIBILITY_SCHEMAS: dict[str, Any] = {
    "HuggingFaceRequest": an_object(
        {"inputs": {"type": "string", "format": "byte", "description": "The image as base64, or as a data URL."}},
        optional={"parameters": ref("HuggingFaceParameters")},
    ),
    "HuggingFaceParameters": an_object(
        {},
        optional={
            "top_k": {**_TOP_K_SCHEMA, "type": ["integer", "null"]},
            "function_to_apply": {"enum": ["softmax", None]},
        },
    ),
    "HuggingFaceLabels": a_list(an_object({"label": _TEXT, "score": _SCORE}), description="Best first."),
    "HuggingFaceError": an_object({"error": _TEXT}),
    "TorchServeLabels": {
        "type": "object",
        "additionalProperties": _SCORE,
        "description": "The probability of each label, best first.",
    },
    "TorchServeStatus": an_object({"status": {"type": "string", "enum": ["Healthy"]}}),
    "TorchServeError": an_object({"code": {"type": "integer"}, "type": _TEXT, "message": _TEXT}),
    "OpenAiEmbeddingsRequest": an_object(
        {
            "input": {
                "anyOf": [_TEXT, a_list(_TEXT, minItems=1, maxItems=MOST_IMAGES)],
                "description": "An image as a data URL with base64 or as plain base64, or a list of them.",
            }
        },
        optional={
            "model": {"type": ["string", "null"], "description": "A model's name; without it, the default model."},
            "encoding_format": {
                "enum": ["float", "base64", None],
                "description": "With `base64`, embeddings are base64 of little-endian float32.",
            },
            "dimensions": {"type": ["integer", "null"], "description": "Must be the length of the model's embeddings."},
        },
    ),
    "OpenAiEmbeddings": an_object(
        {
            "object": {"type": "string", "enum": ["list"]},
            "data": a_list(ref("OpenAiEmbedding")),
            "model": _TEXT,
            "usage": an_object({"prompt_tokens": _COUNT, "total_tokens": _COUNT}),
        }
    ),
    "OpenAiEmbedding": an_object(
        {
            "object": {"type": "string", "enum": ["embedding"]},
            "index": _COUNT,
            "embedding": {"anyOf": [a_list(_NUMBER), {"type": "string", "format": "byte"}]},
        },
        description="The embedding of one image, scaled to Euclidean length 1.",
    ),
    "OpenAiModel": an_object({"id": _TEXT, "object": _TEXT, "created": _COUNT, "owned_by": _TEXT}),
    "OpenAiModels": an_object({"object": {"type": "string", "enum": ["list"]}, "data": a_list(ref("OpenAiModel"))}),
    "OpenAiError": an_object(
        {"error": an_object({"message": _TEXT, "type": _TEXT, "param": {"type": ["string", "null"]}, "code": _TEXT})}
    ),
}
_ERROR_EXAMPLES = {
    "HuggingFaceError": {"error": "There is no such model; choose one of: cifar10-resnet56."},
    "TorchServeError": {
        "code": 404,
        "type": "ModelNotFoundException",
        "message": "There is no such model; choose one of: cifar10-resnet56.",
    },
    "OpenAiError": {
        "error": {
            "message": "There is no such model; choose one of: cifar10-resnet56.",
            "type": "invalid_request_error",
            "param": None,
            "code": "model_not_found",
        }
    },
}
_LABELS = {"cat": 0.934512, "dog": 0.051208}
_TOP_K = {
    "name": "top_k",
    "in": "query",
    "description": "The number of labels to return. A model with fewer labels returns all.",
    "schema": {**_TOP_K_SCHEMA, "default": DEFAULT_TOP_K},
}
_TIMEOUT = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "description": "The deadline of the request in milliseconds after its arrival. If the server expects to miss "
    "it, the response is 503 at once.",
    "schema": {"type": "integer", "minimum": 1, "maximum": MOST_TIMEOUT_MS},
}


def compatibility_paths() -> dict[str, Any]:
    """Return the paths of these routes, for the document's `paths`."""
    torchserve_paths = {
        path: {method: _predict(f"torchserve_predict{suffix}_{method}", names) for method in ("post", "put")}
        for path, suffix, names in zip(
            torchserve.PATHS, ("", "_of_version"), (["model"], ["model", "version"]), strict=True
        )
    }
    return {
        huggingface.PATH: {"post": _classify_for_huggingface()},
        **torchserve_paths,
        torchserve.PING_PATH: {
            "get": _operation(
                "torchserve_ping",
                "Check whether the server is ready for requests",
                "TorchServeError",
                ("TorchServeStatus", {"status": "Healthy"}),
            )
        },
        openai.EMBEDDINGS_PATH: {"post": _embed()},
        openai.MODELS_PATH: {
            "get": _operation(
                "openai_models",
                "List the models that return embeddings",
                "OpenAiError",
                ("OpenAiModels", {"object": "list", "data": [_MODEL]}),
            )
        },
        openai.MODEL_PATH: {
            "get": _operation("openai_model", "Get a model", "OpenAiError", ("OpenAiModel", _MODEL), ["model"])
        },
    }


def _classify_for_huggingface() -> dict[str, Any]:
    answer = [{"label": label, "score": score} for label, score in _LABELS.items()]
    operation = _operation(
        "huggingface_classify",
        "Classify an image for Hugging Face's clients",
        "HuggingFaceError",
        ("HuggingFaceLabels", answer),
        ["model"],
        _OF_BODIES,
    )
    example = {"inputs": _IMAGE, "parameters": {"top_k": 2}}
    content = {**ONE_IMAGE, _JSON: {"schema": ref("HuggingFaceRequest"), "example": example}}
    return _with_body(operation, content, _TOP_K)


def _predict(name: str, names: list[str]) -> dict[str, Any]:
    operation = _operation(
        name,
        "Classify an image for TorchServe's clients",
        "TorchServeError",
        ("TorchServeLabels", _LABELS),
        names,
        _OF_BODIES,
    )
    return _with_body(operation, ONE_IMAGE, _TOP_K)


def _embed() -> dict[str, Any]:
    answer = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.6, 0.0, 0.8]}],
        "model": "cifar10-resnet56",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    }
    operation = _operation(
        "openai_embeddings",
        "Compute embeddings of images for OpenAI's clients",
        "OpenAiError",
        ("OpenAiEmbeddings", answer),
        [],
        _OF_BODIES,
    )
    example = {"input": f"data:image/png;base64,{_IMAGE}", "encoding_format": "float"}
    return _with_body(operation, {_JSON: {"schema": ref("OpenAiEmbeddingsRequest"), "example": example}})


def _with_body(operation: dict[str, Any], content: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    operation["parameters"] += [*parameters, _TIMEOUT, *TRACING_HEADERS]
    operation["requestBody"] = {"required": True, "content": content}
    return operation


def _operation(
    name: str,
    summary: str,
    error: str,
    success: tuple[str, Any],
    in_path: list[str] | None = None,
    further_errors: tuple[int, ...] = (),
) -> dict[str, Any]:
    schema, example = success
    content = {_JSON: {"schema": ref(schema), "example": example}}
    statuses = sorted({400, 401, 404, 405, 408, 431, 500, 503, *further_errors})
    return {
        "tags": [_TAG],
        "summary": summary,
        "operationId": name,
        "parameters": [
            {"name": each, "in": "path", "required": True, "schema": {**_TEXT, "examples": [_EXAMPLES[each]]}}
            | {"description": f"The {'name' if each == 'model' else 'version'} of the model."}
            for each in in_path or ()
        ],
        "responses": {"200": {"description": "The request succeeded.", "headers": ANSWER_HEADERS, "content": content}}
        | {str(status): _error(status, error) for status in statuses},
    }


def _error(status: int, schema: str) -> dict[str, Any]:
    content = {_JSON: {"schema": ref(schema), "example": _ERROR_EXAMPLES[schema]}}
    answer: dict[str, Any] = {"description": _MEANINGS[status], "content": content}
    if status in _ERROR_HEADERS:
        name, kind = _ERROR_HEADERS[status]
        answer["headers"] = {name: {"schema": {"type": kind}}}
    return answer
