"""POST /explain: one image in, class activation maps of its five best labels out."""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import orjson
from starlette.types import Receive, Scope, Send

from service.api.endpoints.inference import InferenceService, RequestReader, read_image
from service.api.endpoints.responses import OPTIONS, image_and_timings, send_bytes
from service.api.parsing.parameters import DEFAULT_TOP_K, read_number
from service.errors import BadRequest, Expired, Overloaded
from service.http.request_context import RequestContext
from service.inference.class_activation import (
    OUTPUT,
    Explanation,
    chosen,
    crop_seen,
    explanation_as_json,
    explanations,
    overlay,
)
from service.inference.classifier import Classifier
from service.inference.results import Classification

PATH = "/explain"
PARAMETERS = ("model", "label", "index")
JSON, PNG = "application/json", "image/png"
_MOST_WAITING = 64  # responses to be rendered, in one process; their uploads count towards the upload memory
_MOST_CELLS = 1024  # of all maps of a response that is rendered on the event loop, in 0.5 ms


@dataclass(frozen=True, slots=True)
class _ClassSelector:
    """The class to explain, by its label or its index; neither selects all of the best labels."""

    label: str | None
    index: int | None


class ExplainEndpoint:
    """Reads the parameters and the image, waits for the model, and sends heat maps."""

    def __init__(self, serving: InferenceService) -> None:
        self._serving = serving
        self._reader = RequestReader(serving.registry, PARAMETERS, _read_selector, read_image, (JSON, PNG))
        self._drawing = _Drawing()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        context: RequestContext = scope["exchange"]
        request = await self._reader.read(scope, receive)
        if request is None:
            return  # the client disconnected during the upload
        classifier, image, selector = request.classifier, request.content, request.options
        classification = await self._serving.classify(
            classifier, image, context, top_k=DEFAULT_TOP_K, outputs=(OUTPUT,)
        )
        found = chosen(explanations(classification), label=selector.label, index=selector.index)
        draw = (
            partial(overlay, found[0], image, classifier, classification.image)
            if request.media_type == PNG
            else partial(_as_json, classifier, classification, found)
        )
        is_small = request.media_type == JSON and sum(each.heat.size for each in found) <= _MOST_CELLS
        body = _draw_now(context, draw) if is_small else await self._drawing.run(context, draw)
        await send_bytes(context, body, request.media_type.encode(), (b"vary", b"accept"))


def _draw_now(context: RequestContext, draw: Callable[[], bytes]) -> bytes:
    began = time.monotonic()
    body = draw()
    context.draw_s = time.monotonic() - began
    return body


class _Drawing:
    """Renders responses in a thread, one at a time: an overlay takes about 20 ms, which would block the event loop."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Semaphore(1)
        self._waiting = 0

    async def run(self, context: RequestContext, draw: Callable[[], bytes]) -> bytes:
        """Return the result of `draw`. Raises Overloaded if too many wait, Expired after the client's deadline."""
        if self._waiting >= _MOST_WAITING:
            raise Overloaded("Too many heat maps are waiting to be rendered; try again later.", retry_after_s=1)
        self._waiting += 1
        came_at = time.monotonic()
        try:
            async with self._one_at_a_time:
                context.queue_s += time.monotonic() - came_at
                _check_awaited(context)
                return await asyncio.to_thread(_draw_now, context, draw)
        finally:
            self._waiting -= 1


def _check_awaited(context: RequestContext) -> None:
    if context.is_awaited() is False:
        raise Expired("The client disconnected before its image was processed.", code="client_left")
    if time.monotonic() > context.expires_at:
        raise Expired("The heat map waited too long; try again later.", retry_after_s=1)


def _read_selector(parameters: Mapping[str, str]) -> _ClassSelector:
    label, text = parameters.get("label"), parameters.get("index")
    if label is not None and text is not None:
        raise BadRequest("The query has both label and index; send only one of them.", code="bad_query")
    index = None if text is None else read_number(text)
    if text is not None and index is None:
        raise BadRequest("index must be the number of a class, counted from 0.", code="bad_index")
    return _ClassSelector(label, index)


def _as_json(classifier: Classifier, classification: Classification, found: list[Explanation]) -> bytes:
    answer = {
        "model": classifier.info,
        "predictions": [explanation_as_json(explanation) for explanation in found],
        "confident": classification.confident,
        "crop": [round(edge, 2) for edge in crop_seen(classifier, classification.image)],
        **image_and_timings(classification),
    }
    return orjson.dumps(answer, option=OPTIONS)
