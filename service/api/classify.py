"""POST /classify: one picture in, its best labels out.

A plain ASGI endpoint, because it is the hot path; `openapi.py` documents it beside the other routes.
"""

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.types import Receive, Scope, Send

from service.api.answer import classification_as_json
from service.api.multipart import file_in_form
from service.batcher import Batcher
from service.classifier import LARGEST_TOP_K
from service.errors import BadRequest, NotAnImage, image_too_large
from service.exchange import Exchange
from service.metrics import Metrics
from service.registry import Registry

PATH = "/classify"
DEFAULT_TOP_K = 5
_MAX_PARAMETERS = 32


@dataclass(frozen=True, slots=True)
class _Question:
    top_k: int = DEFAULT_TOP_K
    model: str | None = None


class ClassifyEndpoint:
    """Answers one request: reads the question, then the picture, and waits for the model."""

    def __init__(self, registry: Registry, batcher: Batcher, metrics: Metrics, *, max_image_bytes: int) -> None:
        self._registry = registry
        self._batcher = batcher
        self._metrics = metrics
        self._max_image_bytes = max_image_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        exchange: Exchange = scope["exchange"]
        question = _read_question(scope["query_string"])
        _check_encoding(exchange.headers)
        classifier = self._registry.find(question.model)
        body = await _read_body(receive)
        if body is None:
            return  # the client left while uploading
        picture = file_in_form(body, exchange.headers[b"content-type"]) if exchange.is_form else body
        self._check_size(picture)
        classification = await classifier.classify(
            picture,
            top_k=question.top_k,
            batcher=self._batcher,
            is_wanted=lambda: not exchange.client_has_left(),
            expires_at=exchange.expires_at,
        )
        await _send_json(send, classification_as_json(classifier.info, classification))
        self._metrics.note_classification(classifier.info.name, classification, time.monotonic() - started)

    def _check_size(self, picture: bytes) -> None:
        if not picture:
            raise BadRequest("There is no image in the request: the file is empty.", code="no_file")
        if len(picture) > self._max_image_bytes:
            raise image_too_large(self._max_image_bytes)


def _read_question(query: bytes) -> _Question:
    if not query:
        return _Question()
    try:
        parameters = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS))
    except ValueError:
        raise BadRequest(f"The query has more than {_MAX_PARAMETERS} parameters.", code="bad_query") from None
    return _Question(_read_top_k(parameters.get("top_k")), parameters.get("model"))


def _read_top_k(text: str | None) -> int:
    if text is None:
        return DEFAULT_TOP_K
    is_number = text.isascii() and text.isdigit() and len(text) <= 9
    if not is_number or not 1 <= int(text) <= LARGEST_TOP_K:
        raise BadRequest(f"top_k must be a whole number from 1 to {LARGEST_TOP_K}.", code="bad_top_k")
    return int(text)


def _check_encoding(headers: dict[bytes, bytes]) -> None:
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
        raise NotAnImage("Content-Encoding is not accepted; send the image file as it is.", code="unsupported_encoding")


async def _read_body(receive: Receive) -> bytes | None:
    """Return the whole body, or None if the client left before its end."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return bytes(message.get("body", b""))
    pieces = []
    while message["type"] == "http.request":
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)
        message = await receive()
    return None


async def _send_json(send: Send, answer: dict[str, Any]) -> None:
    body = orjson.dumps(answer)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
