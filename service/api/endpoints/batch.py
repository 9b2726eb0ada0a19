"""POST /classify/batch: up to 64 images in one body; the response has labels or a problem for each, in order."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from starlette.types import Receive, Scope, Send

from service.api.endpoints.fan_out import gather_results, window_size
from service.api.endpoints.inference import InferenceService, RequestReader, read_body
from service.api.endpoints.responses import image_as_json, send_json
from service.api.parsing.base64_text import from_base64
from service.api.parsing.json_body import parsing_bytes, read_json
from service.api.parsing.long_values import LongText
from service.api.parsing.multipart import read_form
from service.api.parsing.parameters import read_top_k
from service.api.parsing.short_json import NotJson
from service.errors import BadRequest, ServiceError
from service.http.error_responses import problem_document
from service.http.request_context import RequestContext
from service.inference.classifier import Classifier

PATH = "/classify/batch"
PARAMETERS = ("model", "top_k")
MOST_IMAGES = 64
_MOST_FIELDS = 128  # of JSON, as for a form
_SMALL_BYTES = 256 * 1024  # of a body that is parsed on the event loop
_COPIES = 2  # of a form, while it is parsed

# An image, or the error of an image that cannot be read.
Entry = bytes | ServiceError


class BatchEndpoint:
    """Reads the parameters and the images, classifies a limited number at once, and sends the labels as JSON."""

    def __init__(self, serving: InferenceService, *, max_waiting: int) -> None:
        self._serving = serving
        self._max_waiting = max_waiting
        self._reader = RequestReader(serving.registry, PARAMETERS, read_top_k, self._read_entries)
        self._parsing_large = asyncio.Semaphore(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["exchange"]
        request = await self._reader.read(scope, receive)
        if request is None:
            return  # the client disconnected during the upload
        results = await self._classify(request.classifier, request.content, context, request.options)
        await send_json(context, {"model": request.classifier.info, "results": results})

    async def _read_entries(
        self, context: RequestContext, receive: Receive
    ) -> tuple[list[Entry], dict[str, str]] | None:
        body = await read_body(receive)
        if body is None:
            return None
        if len(body) <= _SMALL_BYTES:
            return _entries(body, context)
        async with self._parsing_large:
            context.reserve(_COPIES * len(body) if context.is_form else await asyncio.to_thread(parsing_bytes, body))
            return await asyncio.to_thread(_entries, body, context)

    async def _classify(
        self, classifier: Classifier, entries: Sequence[Entry], context: RequestContext, top_k: int
    ) -> list[dict[str, Any]]:
        async def classify(number: int) -> dict[str, Any]:
            entry = entries[number]
            if isinstance(entry, ServiceError):
                raise entry
            return image_as_json(await self._serving.classify(classifier, entry, context, top_k=top_k))

        window = window_size(classifier.max_batch, self._serving.batcher.thread_count, self._max_waiting)
        answers = await gather_results(len(entries), classify, at_once=window)
        return [self._problem(answer) if isinstance(answer, ServiceError) else answer for answer in answers]

    def _problem(self, error: ServiceError) -> dict[str, Any]:
        self._serving.metrics.note_refusal(error)
        return {"problem": problem_document(error.status, error.code, error.title, error.message)}


def _entries(body: bytes, context: RequestContext) -> tuple[list[Entry], dict[str, str]]:
    """Return the images of a body, and the other fields of a form.

    Raises BadRequest if it cannot be parsed, or has no images or too many.
    """
    entries: list[Entry]
    if context.is_form:
        form = read_form(body, context.headers[b"content-type"], MOST_IMAGES)
        entries, fields = [*form.files], form.fields
    else:
        entries, fields = _entries_of_json(body)
    if not entries:
        raise BadRequest("The request has no image; send 1 to 64 files in fields named files.", code="no_file")
    if len(entries) > MOST_IMAGES:
        raise BadRequest(
            f"A request may have at most {MOST_IMAGES} images; send several requests.", code="too_many_images"
        )
    return entries, fields


def _entries_of_json(body: bytes) -> tuple[list[Entry], dict[str, str]]:
    try:
        document = read_json(body)
    except NotJson:
        raise _bad_json() from None
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list) or len(document) > _MOST_FIELDS:
        raise _bad_json()
    fields = {name: str(value) for name, value in document.items() if isinstance(value, str | int | float)}
    return [_decoded(image) for image in images[: MOST_IMAGES + 1]], fields


def _bad_json() -> BadRequest:
    return BadRequest(
        'Send a multipart form of files, or JSON as {"images": ["base64 of a file", …]}.', code="bad_json"
    )


def _decoded(image: Any) -> Entry:
    text = image.get("b64") if isinstance(image, dict) else image
    if isinstance(text, str | LongText):
        with contextlib.suppress(ValueError):
            return from_base64(text.encode() if isinstance(text, str) else text.content())
    return BadRequest('An image must be base64 or a data URL with base64, or {"b64": base64}.', code="bad_base64")
