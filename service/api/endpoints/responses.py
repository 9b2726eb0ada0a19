"""The JSON that a classification becomes, over HTTP and on the command line alike, and how an answer is sent."""

import functools
from typing import Any

import orjson
from starlette.responses import JSONResponse

from service.http.request_context import RequestContext
from service.inference.classifier import Classification, ModelInfo
from service.telemetry.durations import milliseconds

OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


class JsonAnswer(JSONResponse):
    """An answer that ends with a line end: what a shell says next stands on a line of its own."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return orjson.dumps(content, option=OPTIONS)


def classification_as_json(model: ModelInfo, classification: Classification) -> dict[str, Any]:
    """Return the whole answer, for orjson, which writes dataclasses too."""
    return {"model": _model_as_json(model), **image_as_json(classification)}


@functools.lru_cache(maxsize=64)
def _model_as_json(model: ModelInfo) -> orjson.Fragment:
    return orjson.Fragment(orjson.dumps(model))


def image_as_json(classification: Classification) -> dict[str, Any]:
    """Return the answer without the model, which is the same for all images of a request."""
    return {
        "predictions": [
            {"label": best.label, "index": best.index, "probability": best.probability}
            for best in classification.predictions
        ],
        "confident": classification.confident,
        **image_and_timings(classification),
    }


def image_and_timings(classification: Classification) -> dict[str, Any]:
    """Return what is said of every image, whatever was asked: what it was, and where the time went."""
    return {
        "image": classification.image,
        "timings_ms": {
            "decode": milliseconds(classification.decode_s),
            "queue": milliseconds(classification.queue_s),
            "inference": milliseconds(classification.inference_s),
        },
    }


async def send_json(context: RequestContext, answer: dict[str, Any], *further: tuple[bytes, bytes]) -> None:
    """Send an answer of status 200 that orjson can write, arrays included."""
    await send_bytes(context, orjson.dumps(answer, option=OPTIONS), b"application/json", *further)


async def send_bytes(context: RequestContext, body: bytes, media_type: bytes, *further: tuple[bytes, bytes]) -> None:
    """Send an answer of status 200."""
    headers = ((b"content-type", media_type), (b"content-length", b"%d" % len(body)), *further)
    await context.send_answer(200, headers, body)
