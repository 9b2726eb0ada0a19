"""What the endpoints for images share: the query, the body, one image's way to the model."""

import time
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive

from service.api.parsing.multipart import read_form
from service.api.parsing.parameters import DEFAULT_TOP_K
from service.batching.batcher import Batcher
from service.batching.jobs import Model, SubmitOptions
from service.errors import BadRequest, NotAnImage, image_too_large
from service.http.request_context import RequestContext
from service.images.header import check_format
from service.inference.classifier import Classification, Classifier, ImageJob
from service.inference.registry import Registry, Served
from service.inference.tensor_model import TensorJob
from service.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class InferenceService:
    """Submits the images and rows of requests to the queue, and counts them."""

    registry: Registry
    batcher: Batcher
    metrics: Metrics
    max_image_bytes: int

    async def classify(
        self,
        classifier: Classifier,
        image: bytes,
        exchange: RequestContext,
        *,
        top_k: int = DEFAULT_TOP_K,
        outputs: tuple[str, ...] = (),
    ) -> Classification:
        """Return the best `top_k` labels of one image of a request and the named `outputs` of the model; count it.

        Raises BadRequest if the image is empty, TooLarge, NotAnImage, BadImage, EngineFailed, and what
        `Batcher.submit` raises.
        """
        self._check_size(image)
        check_format(image, is_sent=True)  # before it waits, and before others wait for it
        job = ImageJob(image, top_k, time.monotonic(), outputs=outputs)
        options = SubmitOptions(exchange.is_wanted, exchange.expires_at)
        classification = await self.batcher.submit(classifier, job, options)
        exchange.note_image(classifier.info, classification)
        total_s = time.monotonic() - exchange.started_at
        self.metrics.note_classification(classifier.info, classification, total_s)
        return classification

    async def infer(self, model: Served, job: ImageJob | TensorJob, options: SubmitOptions) -> Classification:
        """Return the model's outputs for one row of a request.

        Raises BadImage, EngineFailed, BadRequest if the graph cannot run with these shapes, and what `Batcher.submit`
        raises.
        """
        runner: Model[Any, Classification] = model  # each job is of its model's kind
        return await self.batcher.submit(runner, job, options)

    def _check_size(self, image: bytes) -> None:
        if not image:
            raise BadRequest("There is no image in the request: the file is empty.", code="no_file")
        if len(image) > self.max_image_bytes:
            raise image_too_large(self.max_image_bytes)


def check_encoding(headers: dict[bytes, bytes]) -> None:
    """Raise NotAnImage for a body that is packed."""
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
        raise NotAnImage("Content-Encoding is not accepted; send the body as it is.", code="unsupported_encoding")


async def read_image(exchange: RequestContext, receive: Receive) -> tuple[bytes, dict[str, str]] | None:
    """Return the one image of a body and, of a form, its other fields; None if the client left. Raises BadRequest."""
    body = await read_body(receive)
    if body is None:
        return None
    if not exchange.is_form:
        return body, {}
    form = read_form(body, exchange.headers[b"content-type"])
    return form.one_file(), form.fields


async def read_body(receive: Receive) -> bytes | None:
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
