"""The trace of a request: a span for the whole, and one each for receiving, queue, decoding, inference and sending.

They are made after the response, from times that are measured anyway, and only for requests that are sampled: by the
flag of the caller's `traceparent` header, or without the header by a ratio. The images of one batch link to its span.
"""

import hashlib
import random
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.http.request_context import RequestContext
from service.telemetry.otlp import Collector, Span, SpanExporter, attribute

if TYPE_CHECKING:  # as in request_context.py
    from service.inference.results import Classification

_INTERNAL, _SERVER = 1, 2  # kinds of spans
_ERROR = {"code": 2}
_SAMPLED = 1
_KNOWN_BATCHES = 256  # whose spans are not sent again
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Traced:
    """A completed request. All times are monotonic seconds."""

    traceparent: bytes | None
    name: str
    status: int | None
    failure: str | None
    request_id: bytes
    model: str | None
    sizes: tuple[int, int]  # bytes received and sent
    started_at: float
    received_at: float | None
    ended_at: float
    ended_ns: int  # of the wall clock
    images: tuple["ImageTimes", ...]


@dataclass(frozen=True, slots=True)
class ImageTimes:
    """The steps of one image: durations, and the start of its batch."""

    queue_s: float
    decode_s: float
    inference_s: float
    batch_started_at: float
    batch_size: int


class Tracer:
    """Decides which requests are traced, and exports them."""

    def __init__(self, target: Collector, ratio: float) -> None:
        self._ratio = ratio
        self._batches = BatchIds()
        self.exporter: SpanExporter[Traced] = SpanExporter(target, self._spans_of)

    def begin(self, context: RequestContext) -> None:
        """Let a sampled request collect the times of its images."""
        parent = context.traceparent
        is_sampled = random.random() < self._ratio if parent is None else bool(int(parent[-2:], 16) & _SAMPLED)  # noqa: S311
        if is_sampled:
            context.traced_images = []

    def end(self, context: RequestContext, method: str, route: str) -> None:
        """Export a completed request if it was sampled."""
        images = context.traced_images
        if images is None:
            return
        self.exporter.put(
            Traced(
                traceparent=context.traceparent,
                name=f"{method} {route}",
                status=context.status,
                failure=context.failure,
                request_id=context.request_id,
                model=None if context.model is None else context.model.served_as,
                sizes=(context.bytes_in, context.bytes_out),
                started_at=context.started_at,
                received_at=context.received_at,
                ended_at=time.monotonic(),
                ended_ns=time.time_ns(),
                images=tuple(map(_times_of, images)),
            )
        )

    def _spans_of(self, request: Traced) -> Iterator[Span]:
        return spans_of(request, self._batches)


def _times_of(image: "Classification") -> ImageTimes:
    return ImageTimes(image.queue_s, image.decode_s, image.inference_s, image.batch_started_at, image.batch_size)


class BatchIds:
    """The ids of batches' spans. A batch is known by its start, which its images have in common."""

    def __init__(self) -> None:
        self._process = random.randbytes(16)  # noqa: S311  # no secret
        self._recent: deque[str] = deque(maxlen=_KNOWN_BATCHES)

    def of(self, started_at: float) -> dict[str, str]:
        """Return trace id and span id of the batch that began at this time in this process."""
        digest = hashlib.blake2b(started_at.hex().encode(), digest_size=24, key=self._process).hexdigest()
        return {"traceId": digest[:32], "spanId": digest[32:]}

    def is_new(self, span_id: str) -> bool:
        """Return whether the batch has no span yet, and remember it."""
        if span_id in self._recent:
            return False
        self._recent.append(span_id)
        return True


def spans_of(request: Traced, batches: BatchIds) -> Iterator[Span]:
    """Yield the spans of a request, and of the batches that it is the first of to be traced."""
    trace_id, parent_id = _parent(request.traceparent)
    make = _SpanMaker(request, trace_id)
    root = make.span(f"{request.name}", parent_id, request.started_at, request.ended_at, kind=_SERVER)
    root["attributes"] = list(_attributes(request))
    if request.status is None or request.status >= 500:
        root["status"] = _ERROR
    yield root
    if request.received_at is not None:
        yield make.span("receive", root["spanId"], request.started_at, request.received_at)
    for image in request.images:
        yield from _spans_of_image(make, root["spanId"], image, batches)
    if request.images:
        done_at = max(image.batch_started_at + image.inference_s for image in request.images)
        yield make.span("send", root["spanId"], done_at, request.ended_at)


def _spans_of_image(make: "_SpanMaker", parent_id: str, image: ImageTimes, batches: BatchIds) -> Iterator[Span]:
    """Yield the steps of one image, one before the other, up to the end of its batch."""
    started_at = image.batch_started_at
    decoded_from = started_at - image.decode_s
    yield make.span("queue", parent_id, decoded_from - image.queue_s, decoded_from)
    yield make.span("decode", parent_id, decoded_from, started_at)
    inference = make.span("inference", parent_id, started_at, started_at + image.inference_s)
    inference["attributes"] = [attribute("resnet.batch.size", image.batch_size)]
    batch = batches.of(started_at)
    inference["links"] = [batch]
    yield inference
    if batches.is_new(batch["spanId"]):
        yield {**inference, **batch, "name": "batch", "parentSpanId": "", "links": []}


def _parent(traceparent: bytes | None) -> tuple[str, str]:
    """Return the trace id and the id of the parent span: the caller's, or a new trace without a parent."""
    if traceparent is None:
        return f"{random.getrandbits(128) or 1:032x}", ""  # no secret
    _, trace_id, parent_id, _ = traceparent.decode().split("-")
    return trace_id, parent_id


def _attributes(request: Traced) -> Iterator[dict[str, object]]:
    method, _, route = request.name.partition(" ")
    yield attribute("http.request.method", method)
    yield attribute("http.route", route)
    yield attribute("http.request.body.size", request.sizes[0])
    yield attribute("http.response.body.size", request.sizes[1])
    yield attribute("resnet.request_id", request.request_id.decode())
    if request.status is not None:
        yield attribute("http.response.status_code", request.status)
    if request.failure is not None:
        yield attribute("error.type", request.failure)
    if request.model is not None:
        yield attribute("resnet.model", request.model)
        yield attribute("resnet.images", len(request.images))


class _SpanMaker:
    """Makes the spans of one request, whose monotonic times become those of the wall clock."""

    def __init__(self, request: Traced, trace_id: str) -> None:
        self._request = request
        self._trace_id = trace_id

    def span(self, name: str, parent_id: str, started_at: float, ended_at: float, *, kind: int = _INTERNAL) -> Span:
        """Return a span between two monotonic times, the first of which is not before the request."""
        started_at = max(started_at, self._request.started_at)
        return {
            "traceId": self._trace_id,
            "spanId": f"{random.getrandbits(64) or 1:016x}",  # no secret
            "parentSpanId": parent_id,
            "name": name,
            "kind": kind,
            "startTimeUnixNano": self._wall_ns(started_at),
            "endTimeUnixNano": self._wall_ns(max(started_at, ended_at)),
        }

    def _wall_ns(self, at: float) -> str:
        return str(self._request.ended_ns - round((self._request.ended_at - at) * _NS))
