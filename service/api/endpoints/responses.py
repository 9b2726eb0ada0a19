"""The JSON of a classification, for HTTP and the command line, and functions that send responses."""

import functools
from typing import Any

import orjson
from starlette.responses import JSONResponse

from service.http.request_context import RequestContext
from service.inference.results import Classification, ModelInfo
from service.telemetry.durations import milliseconds

OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE


class JsonAnswer(JSONResponse):
    """A JSON response with a line end, so that a shell's prompt starts on a new line."""

    def render(self, content: Any) -> bytes:
        """Return the body; orjson also serializes dataclasses and arrays."""
        return orjson.dumps(content, option=OPTIONS)


def classification_as_json(model: ModelInfo, classification: Classification) -> dict[str, Any]:
    """Return the document of a classification, for orjson, which also serializes dataclasses."""
    return {"model": _model_as_json(model), **image_as_json(classification)}


@functools.lru_cache(maxsize=64)
def _model_as_json(model: ModelInfo) -> orjson.Fragment:
    return orjson.Fragment(orjson.dumps(model))


def image_as_json(classification: Classification) -> dict[str, Any]:
    """Return the document of one image, without the model, which all images of a request share."""
    return {
        "predictions": [
            {"label": best.label, "index": best.index, "probability": best.probability}
            for best in classification.predictions
        ],
        "confident": classification.confident,
        **image_and_timings(classification),
    }


def image_and_timings(classification: Classification) -> dict[str, Any]:
    """Return the fields of every image's result: the image's properties, and the timings in ms."""
    return {
        "image": classification.image,
        "timings_ms": {
            "decode": milliseconds(classification.decode_s),
            "queue": milliseconds(classification.queue_s),
            "inference": milliseconds(classification.inference_s),
        },
    }


async def send_json(context: RequestContext, answer: dict[str, Any], *further: tuple[bytes, bytes]) -> None:
    """Send a JSON response of status 200; `answer` may contain dataclasses and arrays."""
    await send_bytes(context, orjson.dumps(answer, option=OPTIONS), b"application/json", *further)


async def send_bytes(context: RequestContext, body: bytes, media_type: bytes, *further: tuple[bytes, bytes]) -> None:
    """Send a response of status 200 with the given body and additional headers."""
    headers = ((b"content-type", media_type), (b"content-length", b"%d" % len(body)), *further)
    await context.send_answer(200, headers, body)
