"""The routes under /v2 (Open Inference Protocol) in the OpenAPI document."""

from typing import Any

from service.api.openapi.schemas import ANSWER_HEADERS, TRACING_HEADERS, ref
from service.api.parsing.json_body import MOST_JSON_VALUES
from service.api.v2.metadata import EXTENSIONS, NAME
from service.api.v2.rows import MOST_ROWS
from service.http.request_context import MOST_TIMEOUT_MS

_TAG = "open inference protocol"
_JSON, _RAW = "application/json", "application/octet-stream"
_MODEL, _VERSION = ("model", "The name of the model."), ("version", "The version of the model, a number from 1.")
_EXAMPLES = {"model": "cifar10-resnet56", "version": "1"}
# One red pixel, as a PNG.
_IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC"
_ERRORS = {
    400: "The input `images` takes UINT8 [-1, 32, 32, 3], or BYTES [-1] with JPEG, PNG or WebP files.",
    401: "A valid API key is required: send `Authorization: Bearer <key>` or `X-Api-Key`.",
    403: "Models are loaded and unloaded only on the admin port; send the request to the same path there.",
    404: "There is no such model; choose one of: cifar10-resnet20, cifar10-resnet56.",
    405: "This path supports only POST.",
    408: "The request did not arrive in time.",
    413: "The body of this request may have at most 64 MiB (67,108,864 bytes).",
    429: "This client has sent more requests than its rate limit allows; send fewer, or wait.",
    431: "The path and the headers together may have at most 64 KiB.",
    500: "The model failed; the server's log has the cause.",
    503: "Too many images are waiting; try again later.",
}
_MEANINGS = {
    400: "The request is malformed, or its tensors do not match the inputs of the model.",
    401: "The server requires an API key, and the request has none that is valid.",
    403: "This port does not load or unload models.",
    404: "The path, the model or the version does not exist.",
    405: "The path does not support the method; see the Allow header.",
    408: "The request did not arrive in time: 5 s for the headers, by default 30 s for the body.",
    413: "The body exceeds the limit, by default 64 MiB, or the memory that a request may use.",
    429: "The client has sent more requests than its rate limit allows; see the Retry-After header.",
    431: "The request line and the headers have more than 64 KiB, or more than 256 lines.",
    500: "The server or its model failed; the server's log has the cause.",
    503: "The server is overloaded, starting or stopping, or cannot meet the deadline of the request; see the "
    "Retry-After header for the seconds until a retry.",
}
_ALWAYS = (400, 401, 404, 405, 408, 431, 500, 503)
_ERROR_HEADERS = {
    401: ("WWW-Authenticate", "string"),
    405: ("Allow", "string"),
    429: ("Retry-After", "integer"),
    503: ("Retry-After", "integer"),
}

_TENSOR = {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]}
_METADATA = {
    "name": "cifar10-resnet56",
    "versions": ["1"],
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}],
    "outputs": [_TENSOR],
}
_CONFIG = {
    "name": "cifar10-resnet56",
    "platform": "onnxruntime_onnx",
    "backend": "onnxruntime",
    "max_batch_size": 1024,
    "input": [{"name": "images", "data_type": "TYPE_UINT8", "dims": [32, 32, 3]}],
    "output": [{"name": "probabilities", "data_type": "TYPE_FP32", "dims": [10]}],
}
_DURATION = {"count": 4, "ns": 12_000_000}
_STATISTICS = {
    "model_stats": [
        {
            "name": "cifar10-resnet56",
            "version": "1",
            "last_inference": 1_764_000_000_000,
            "inference_count": 40,
            "execution_count": 6,
            "inference_stats": {"success": _DURATION, "queue": _DURATION, "compute_infer": _DURATION},
        }
    ]
}
_REQUEST = {
    "id": "seven",
    "inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": [_IMAGE]}],
    "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
}
_ANSWER = {
    "model_name": "cifar10-resnet56",
    "model_version": "1",
    "id": "seven",
    "outputs": [
        {"name": "probabilities", "datatype": "BYTES", "shape": [1, 2], "data": ["0.934512:3:cat", "0.051208:5:dog"]}
    ],
}
_HEAD_LENGTH = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "The length of the JSON at the beginning of the body, in bytes; raw tensors follow it. With 0 the "
    "body is one raw tensor, or one JPEG, PNG or WebP file. Without this header the whole body is JSON.",
    "schema": {"type": "integer", "minimum": 0},
}
_RAW_HEADERS = {
    "Inference-Header-Content-Length": {
        "description": "The length of the JSON at the beginning of the body, in bytes. Present if raw tensors follow.",
        "schema": {"type": "integer"},
    },
    "Content-Encoding": {"description": "`gzip` or `deflate`, if the client accepts it.", "schema": {"type": "string"}},
}
_TIMEOUT = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "description": "The deadline of the request in milliseconds after its arrival. If the server cannot meet it, the "
    "response is 503. The parameter `timeout` of the request is a deadline in microseconds.",
    "schema": {"type": "integer", "minimum": 1, "maximum": MOST_TIMEOUT_MS},
}
_INFER_BODY = {
    "required": True,
    "content": {
        _JSON: {"schema": ref("V2Request"), "example": _REQUEST},
        _RAW: {"schema": {"type": "string", "format": "binary"}},
    },
}


_ACTIONS = ("load", "unload")
_ABOUT_A_MODEL: dict[str, tuple[str, str, str, Any]] = {
    "": ("v2_model", "Get the inputs and outputs of a model", "V2Model", _METADATA),
    "/config": ("v2_config", "Get the configuration of a model, as Triton's ModelConfig", "V2Config", _CONFIG),
    "/ready": (
        "v2_model_ready",
        "Check whether a model is ready",
        "V2ModelReady",
        {"name": "cifar10-resnet56", "ready": True},
    ),
    "/stats": (
        "v2_model_statistics",
        "Get the statistics of a model, summed over all processes",
        "V2Statistics",
        _STATISTICS,
    ),
}


def v2_paths() -> dict[str, Any]:
    """Return the paths under /v2, for the document's `paths`."""
    server = {"name": NAME, "version": "1.0", "extensions": EXTENSIONS}
    paths: dict[str, Any] = {
        "/v2": _get("v2_server", "Get the name, version and protocol extensions of the server", "V2Server", server),
        "/v2/health/live": _get("v2_live", "Check whether the process is alive", "V2Live", {"live": True}),
        "/v2/health/ready": _get(
            "v2_ready", "Check whether the server is ready for requests", "V2Ready", {"ready": True}
        ),
        "/v2/models/stats": _get(
            "v2_statistics", "Get the statistics of all models, summed over all processes", "V2Statistics", _STATISTICS
        ),
        "/v2/repository/index": {"post": _index()},
    }
    for middle, parameters, suffix in (("", [_MODEL], ""), ("/versions/{version}", [_MODEL, _VERSION], "_of_version")):
        for end, (name, summary, schema, example) in _ABOUT_A_MODEL.items():
            item = _get(f"{name}{suffix}", summary, schema, example, parameters)
            paths[f"/v2/models/{{model}}{middle}{end}"] = item
        paths[f"/v2/models/{{model}}{middle}/infer"] = {"post": _infer(f"v2_infer{suffix}", parameters)}
    return paths | {f"/v2/repository/models/{{model}}/{action}": {"post": _change(action)} for action in _ACTIONS}


def _get(
    name: str, summary: str, schema: str, example: Any, parameters: list[tuple[str, str]] | None = None
) -> dict[str, Any]:
    return {"get": _operation(name, summary, parameters or [], (schema, example))}


def _index() -> dict[str, Any]:
    entry = {"name": "cifar10-resnet56", "version": "1", "state": "READY", "reason": ""}
    operation = _operation(
        "v2_index", "List the versions of all models with their states", [], ("V2Index", [entry]), (413,)
    )
    body = {"schema": ref("V2IndexRequest"), "example": {"ready": True}}
    operation["requestBody"] = {"required": False, "content": {_JSON: body}}
    return operation


def _change(action: str) -> dict[str, Any]:
    summary = f"{action.capitalize()} a model (admin port only)"
    return _operation(f"v2_{action}", summary, [_MODEL], None, (403,))


def _operation(
    name: str,
    summary: str,
    parameters: list[tuple[str, str]],
    success: tuple[str, Any] | None,
    further_errors: tuple[int, ...] = (),
) -> dict[str, Any]:
    errors = {str(status): _error(status) for status in sorted((*_ALWAYS, *further_errors))}
    return {
        "tags": [_TAG],
        "summary": summary,
        "operationId": name,
        "parameters": [_in_path(*parameter) for parameter in parameters],
        "responses": errors if success is None else {"200": _success(*success), **errors},
    }


def _success(schema: str, example: Any) -> dict[str, Any]:
    content = {_JSON: {"schema": ref(schema), "example": example}}
    return {"description": "The request succeeded.", "headers": ANSWER_HEADERS, "content": content}


def _infer(name: str, parameters: list[tuple[str, str]]) -> dict[str, Any]:
    operation = _operation(name, "Run a model on tensors or images", parameters, ("V2Response", _ANSWER), (413, 429))
    operation["description"] = (
        "Tensors are JSON, or raw little-endian bytes after the JSON. An input of datatype BYTES takes JPEG, PNG or "
        "WebP files. Each row is queued, batched and limited like an image of /classify. A request has at most "
        f"{MOST_ROWS:,} rows, and its JSON at most {MOST_JSON_VALUES:,} values. The content type of a request is "
        "ignored. Requests and responses may be compressed with gzip or deflate. The durations of a response are in "
        "its Server-Timing header, in milliseconds."
    )
    operation["parameters"] += [_HEAD_LENGTH, _TIMEOUT, *TRACING_HEADERS]
    operation["requestBody"] = _INFER_BODY
    success = operation["responses"]["200"]
    success["content"][_RAW] = {"schema": {"type": "string", "format": "binary"}}
    success["headers"] = {**ANSWER_HEADERS, **_RAW_HEADERS}
    return operation


def _in_path(name: str, text: str) -> dict[str, Any]:
    schema = {"type": "string", "examples": [_EXAMPLES[name]]}
    return {"name": name, "in": "path", "required": True, "description": text, "schema": schema}


def _error(status: int) -> dict[str, Any]:
    content = {_JSON: {"schema": ref("V2Error"), "example": {"error": _ERRORS[status]}}}
    answer: dict[str, Any] = {"description": _MEANINGS[status], "content": content}
    if status in _ERROR_HEADERS:
        name, kind = _ERROR_HEADERS[status]
        answer["headers"] = {name: {"schema": {"type": kind}}}
    return answer
