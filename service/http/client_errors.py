"""Errors in the formats of other services' clients: Hugging Face, TorchServe and OpenAI.

Each of these clients shows the message of its own format. For another format it shows at best the raw body.
"""

from typing import Any

import orjson

_TORCHSERVE_TYPES = {
    400: "BadRequestException",
    401: "InvalidKeyException",
    404: "ResourceNotFoundException",
    405: "MethodNotAllowedException",
    408: "RequestTimeoutException",
    413: "RequestEntityTooLargeException",
    415: "BadRequestException",
    422: "BadRequestException",
    429: "TooManyRequestsException",
    503: "ServiceUnavailableException",
}
_MODEL_NOT_FOUND = "model_not_found"


def client_error(path: str, status: int, code: str, message: str) -> bytes | None:
    """Return the JSON document of an error in the format of the path's clients, or None for any other path."""
    document = _document(path, status, code, message)
    return None if document is None else orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def _document(path: str, status: int, code: str, message: str) -> dict[str, Any] | None:
    if path.startswith("/hf/"):
        return {"error": message}
    if path == "/ping" or path.startswith("/predictions/"):
        return _torchserve_document(status, code, message)
    if path in ("/v1/embeddings", "/v1/models") or path.startswith("/v1/models/"):
        return {"error": {"message": message, "type": _openai_type(status), "param": None, "code": code}}
    return None


def torchserve_error(status: int, code: str, message: str) -> bytes:
    """Return the JSON document of an error in TorchServe's format."""
    return orjson.dumps(_torchserve_document(status, code, message), option=orjson.OPT_APPEND_NEWLINE)


def _torchserve_document(status: int, code: str, message: str) -> dict[str, Any]:
    return {"code": status, "type": _torchserve_type(status, code), "message": message}


def _torchserve_type(status: int, code: str) -> str:
    if code == _MODEL_NOT_FOUND:
        return "ModelNotFoundException"
    return _TORCHSERVE_TYPES.get(status, "InternalServerException")


def _openai_type(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if status < 500 else "server_error"
