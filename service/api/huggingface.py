"""POST /hf/{model}: image classification for the clients of Hugging Face's inference API.

The body is the image itself, a form, or JSON: `{"inputs": base64, "parameters": {"top_k": 3}}`.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from service.api.endpoints.inference import InferenceService, check_encoding, read_body
from service.api.endpoints.responses import OPTIONS, send_bytes
from service.api.parsing.json_images import JsonParser, decoded_image, read_object
from service.api.parsing.multipart import read_form
from service.api.parsing.parameters import read_query, read_top_k, with_fields
from service.errors import BadRequest
from service.http.request_context import RequestContext

PATH = "/hf/{model}"
PARAMETERS = ("top_k",)
_FUNCTIONS = (None, "softmax")
_EXPECTED = 'an image, or {"inputs": "base64 of an image", "parameters": {"top_k": 3}}'


class HuggingFaceEndpoint:
    """The endpoint of Hugging Face's image classification."""

    def __init__(self, serving: InferenceService) -> None:
        self._serving = serving
        self._parser = JsonParser()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["exchange"]
        parameters = read_query(scope["query_string"], PARAMETERS)
        check_encoding(context.headers)
        classifier = self._serving.registry.find(scope["path_params"]["model"])
        body = await read_body(receive)
        if body is None:
            return  # the client disconnected during the upload
        image, fields = await self._read(body, context)
        top_k = read_top_k(with_fields(parameters, fields, PARAMETERS))
        classification = await self._serving.classify(classifier, image, context, top_k=top_k)
        answer = [{"label": best.label, "score": best.probability} for best in classification.predictions]
        await send_bytes(context, orjson.dumps(answer, option=OPTIONS), b"application/json")

    async def _read(self, body: bytes, context: RequestContext) -> tuple[bytes, Mapping[str, str]]:
        if context.is_form:
            form = read_form(body, context.headers[b"content-type"])
            return form.one_file(), form.fields
        if _is_json(body, context.headers):
            return await self._parser.parse(body, context, _read_json)
        return body, {}


def _is_json(body: bytes, headers: Mapping[bytes, bytes]) -> bool:
    """Return whether a body is JSON, by its content type or its first byte, with which no image begins."""
    is_declared = headers.get(b"content-type", b"")[:16].lower() == b"application/json"
    return is_declared or body[:64].lstrip()[:1] == b"{"


def _read_json(body: bytes) -> tuple[bytes, dict[str, str]]:
    document = read_object(body, _EXPECTED)
    parameters = document.get("parameters")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise BadRequest(f"`parameters` must be an object; send {_EXPECTED}.", code="bad_json")
    if parameters.get("function_to_apply") not in _FUNCTIONS:
        raise BadRequest(
            "`function_to_apply` must be softmax or omitted: the scores are calibrated probabilities.",
            code="bad_json",
        )
    return decoded_image(document.get("inputs"), "inputs"), _as_fields(parameters)


def _as_fields(parameters: dict[str, Any]) -> dict[str, str]:
    """Return the parameters as strings, like those of a query, without null values. Raises BadRequest."""
    if not all(value is None or isinstance(value, str | int | float) for value in parameters.values()):
        raise BadRequest("Each of `parameters` must be a number, a text or null.", code="bad_json")
    return {str(name): str(value) for name, value in parameters.items() if value is not None}
