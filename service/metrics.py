"""Every counter and histogram, and the one place that touches them.

Label values come from fixed sets or from the loaded models, so that no client can make more series.
"""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from service.classifier import Classification, ModelInfo
from service.errors import ServiceError

METRICS_MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The server's statistics since it started."""

    def __init__(self) -> None:
        disable_created_metrics()  # a third of the text, and nobody asks when a counter began
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.in_flight = 0
        self._requests = Counter(
            "resnet_requests", "Answers by route, method and status.", ("route", "method", "status"), registry=registry
        )
        self._refusals = Counter("resnet_refusals", "Requests that failed, by code.", ("code",), registry=registry)
        self._pictures = Counter("resnet_pictures", "Classified pictures by format.", ("format",), registry=registry)
        self._batch_size = Histogram(
            "resnet_batch_size",
            "Classified pictures by the size of the batch they shared.",
            ("model",),
            buckets=_BATCH_SIZES,
            registry=registry,
        )
        self._decode, self._queue, self._inference, self._total = (
            Histogram(f"resnet_{step}_seconds", text, ("model",), buckets=_SECONDS, registry=registry)
            for step, text in (
                ("decode", "Decoding and resizing one picture."),
                ("queue", "Waiting until an engine thread took the picture."),
                ("inference", "Running the model on the picture's batch."),
                ("request", "From a request's headers to its answer, uploading included."),
            )
        )
        self._model = Gauge(
            "resnet_model_info", "Loaded models.", ("model", "version", "sha256", "provider", "precision"),
            registry=registry,
        )  # fmt: skip
        self._gauge("resnet_requests_in_flight", "Requests that are not answered yet.", lambda: self.in_flight)

    def watch_queue(self, waiting: Callable[[], int]) -> None:
        """Report what `waiting` returns as the depth of the queue."""
        self._gauge("resnet_queue_depth", "Pictures that wait for an engine thread.", waiting)

    def note_models(self, models: Iterable[ModelInfo]) -> None:
        """Report these models as loaded."""
        for model in models:
            self._model.labels(model.name, model.version, model.sha256, model.provider, model.precision).set(1)

    def note_answer(self, route: str, method: str, status: int) -> None:
        """Count one answer. `route` is one of the server's own paths, or `other`."""
        self._requests.labels(route, method if method in _METHODS else "other", str(status)).inc()

    def note_refusal(self, error: ServiceError) -> None:
        """Count one request that failed in a way we know."""
        self._refusals.labels(error.code).inc()

    def note_classification(self, model: str, classification: Classification, total_s: float) -> None:
        """Count one classified picture and where its time went."""
        self._pictures.labels(classification.image.format).inc()
        self._batch_size.labels(model).observe(classification.batch_size)
        self._decode.labels(model).observe(classification.decode_s)
        self._queue.labels(model).observe(classification.queue_s)
        self._inference.labels(model).observe(classification.inference_s)
        self._total.labels(model).observe(total_s)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def _gauge(self, name: str, text: str, value: Callable[[], int]) -> None:
        Gauge(name, text, registry=self._registry).set_function(value)
