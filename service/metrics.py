"""Every counter and histogram, and the one place that touches them.

They are plain numbers that only the event loop changes, and become Prometheus' format when somebody asks: that costs a
request 3 µs instead of 25. Label values come from fixed sets or from the loaded models, so that no client can make
more series.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from service.classifier import Classification, ModelInfo
from service.errors import ServiceError

METRICS_MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_HISTOGRAMS = (
    ("resnet_batch_size", "Classified pictures by the size of the batch they shared.", _BATCH_SIZES),
    ("resnet_decode_seconds", "Decoding and resizing one picture.", _SECONDS),
    ("resnet_queue_seconds", "Waiting until an engine thread took the picture.", _SECONDS),
    ("resnet_inference_seconds", "Running the model on the picture's batch.", _SECONDS),
    ("resnet_request_seconds", "From a request's headers to its answer, uploading included.", _SECONDS),
)


class _Histogram:
    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)  # the last one is for everything above
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, label: str) -> None:
        names = [*(str(bound) for bound in self._bounds), "+Inf"]
        family.add_metric([label], list(zip(names, accumulate(self._counts), strict=True)), self._sum)


class Metrics(Collector):
    """The server's statistics since it started."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.queue_depth: Callable[[], int] = lambda: 0
        self._requests: Counter[tuple[str, ...]] = Counter()
        self._refusals: Counter[tuple[str, ...]] = Counter()
        self._pictures: Counter[tuple[str, ...]] = Counter()
        self._models: list[ModelInfo] = []
        self._by_model: defaultdict[str, list[_Histogram]] = defaultdict(
            lambda: [_Histogram(bounds) for _, _, bounds in _HISTOGRAMS]
        )
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def note_models(self, models: Iterable[ModelInfo]) -> None:
        """Report these models as loaded."""
        self._models = list(models)

    def note_answer(self, route: str, method: str, status: int) -> None:
        """Count one answer. `route` is one of the server's own paths, or `other`."""
        self._requests[route, method if method in _METHODS else "other", str(status)] += 1

    def note_refusal(self, error: ServiceError) -> None:
        """Count one request that failed in a way we know."""
        self._refusals[(error.code,)] += 1

    def note_classification(self, model: str, classification: Classification, total_s: float) -> None:
        """Count one classified picture and where its time went."""
        self._pictures[(classification.image.format,)] += 1
        batch_size, decode, queue, inference, total = self._by_model[model]
        batch_size.observe(classification.batch_size)
        decode.observe(classification.decode_s)
        queue.observe(classification.queue_s)
        inference.observe(classification.inference_s)
        total.observe(total_s)

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield everything in Prometheus' own terms."""
        yield _counters("resnet_requests", "Answers by route.", ("route", "method", "status"), self._requests)
        yield _counters("resnet_refusals", "Requests that failed, by code.", ("code",), self._refusals)
        yield _counters("resnet_pictures", "Classified pictures by format.", ("format",), self._pictures)
        yield GaugeMetricFamily("resnet_requests_in_flight", "Requests without an answer yet.", self.in_flight)
        yield GaugeMetricFamily("resnet_queue_depth", "Pictures that wait for the engine.", self.queue_depth())
        info = GaugeMetricFamily("resnet_model_info", "Loaded models.", labels=tuple(ModelInfo.__slots__))
        for model in self._models:
            info.add_metric([getattr(model, name) for name in ModelInfo.__slots__], 1)
        yield info
        for number, (name, text, _) in enumerate(_HISTOGRAMS):
            family = HistogramMetricFamily(name, text, labels=("model",))
            for model_name, histograms in self._by_model.items():
                histograms[number].add_to(family, model_name)
            yield family


def _counters(name: str, text: str, labels: tuple[str, ...], counts: Counter[tuple[str, ...]]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family
