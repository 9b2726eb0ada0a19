"""The shared parts of the image endpoints: reading a request, and submitting its images to the queue."""

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from starlette.types import Receive, Scope

from service.api.parsing.multipart import read_form
from service.api.parsing.parameters import DEFAULT_TOP_K, read_query, with_fields
from service.batching.batcher import Batcher
from service.batching.jobs import Model, SubmitOptions
from service.errors import BadRequest, NotAnImage, ServiceError, image_too_large
from service.http.accept import choose
from service.http.request_context import RequestContext
from service.images.header import check_format
from service.inference.classifier import Classifier, ImageJob
from service.inference.registry import Registry, ServedModel
from service.inference.results import Classification
from service.inference.tensor_model import TensorJob
from service.telemetry.metrics import Metrics

Content = TypeVar("Content")
Options = TypeVar("Options")


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
        context: RequestContext,
        *,
        top_k: int = DEFAULT_TOP_K,
        outputs: tuple[str, ...] = (),
    ) -> Classification:
        """Return the best `top_k` labels of one image and the named `outputs` of the model, and update the metrics.

        Raises BadRequest if the image is empty, TooLarge, NotAnImage, BadImage, EngineFailed, and the errors of
        `Batcher.submit`.
        """
        if not 0 < len(image) <= self.max_image_bytes:
            raise self._refusal(image)
        check_format(image, is_sent=True)  # before the image takes a position in the queue
        job = ImageJob(image, top_k, time.monotonic(), outputs=outputs)
        options = SubmitOptions(context.is_awaited, context.expires_at)
        classification = await self.batcher.submit(classifier, job, options)
        context.note_image(classifier.info, classification)
        total_s = time.monotonic() - context.started_at
        self.metrics.note_classification(classifier.info, classification, total_s)
        return classification

    async def infer(self, model: ServedModel, job: ImageJob | TensorJob, options: SubmitOptions) -> Classification:
        """Return the model's outputs for one row of a request.

        Raises BadImage, EngineFailed, BadRequest if the graph cannot run with these shapes, and the errors of
        `Batcher.submit`.
        """
        runner: Model[Any, Classification] = model  # each job is of its model's kind
        return await self.batcher.submit(runner, job, options)

    def _refusal(self, image: bytes) -> ServiceError:
        if not image:
            return BadRequest("The request has no image: the file is empty.", code="no_file")
        return image_too_large(self.max_image_bytes)


@dataclass(slots=True)
class ImageRequest(Generic[Content, Options]):
    """A completely received and parsed request."""

    classifier: Classifier
    content: Content  # of the body: one image, or several
    options: Options  # the endpoint's own parameters
    media_type: str  # of the response


@dataclass(frozen=True, slots=True)
class RequestReader(Generic[Content, Options]):
    """Reads the requests of one endpoint: first the query's parameters and the model, then the body.

    Fields of a form are parameters as well. `read_content` returns the content of a body and the other fields of a
    form, or None if the client disconnected.
    """

    registry: Registry
    parameters: tuple[str, ...]  # names of the endpoint's parameters
    read_options: Callable[[Mapping[str, str]], Options]
    read_content: Callable[[RequestContext, Receive], Awaitable[tuple[Content, dict[str, str]] | None]]
    media_types: tuple[str, ...] = ("application/json",)  # of the response, the preferred one first

    async def read(self, scope: Scope, receive: Receive) -> ImageRequest[Content, Options] | None:
        """Return the request, or None if the client disconnected during the upload.

        Raises BadRequest, NotAcceptable, NotAnImage for a compressed body, NotFound and NotReady for the model, and
        the errors of `read_content`.
        """
        context: RequestContext = scope["exchange"]
        parameters = read_query(scope["query_string"], self.parameters)
        options = self.read_options(parameters)
        media_type = self.media_types[0]
        if len(self.media_types) > 1:
            media_type = choose(context.headers.get(b"accept"), self.media_types)
        check_encoding(context.headers)
        classifier = self.registry.find(parameters.get("model"))
        read = await self.read_content(context, receive)
        if read is None:
            return None
        content, fields = read
        if fields:
            parameters = with_fields(parameters, fields, self.parameters)
            options, classifier = self.read_options(parameters), self.registry.find(parameters.get("model"))
        return ImageRequest(classifier, content, options, media_type)


def check_encoding(headers: dict[bytes, bytes]) -> None:
    """Raise NotAnImage for a compressed body."""
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"identity", b""):
        raise NotAnImage("Content-Encoding is not supported; send the body uncompressed.", code="unsupported_encoding")


async def read_image(context: RequestContext, receive: Receive) -> tuple[bytes, dict[str, str]] | None:
    """Return the image of a body and the other fields of a form; None if the client disconnected. Raises BadRequest."""
    body = await read_body(receive)
    if body is None:
        return None
    if not context.is_form:
        return body, {}
    form = read_form(body, context.headers[b"content-type"])
    return form.one_file(), form.fields


async def read_body(receive: Receive) -> bytes | None:
    """Return the whole body, or None if the client disconnected before its end."""
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
