"""Every counter and histogram of one process, and the one place that touches them.

They are plain numbers that only the event loop changes, and become a snapshot when the supervisor asks: that costs a
request 3 µs instead of 25. Label values come from fixed sets or from the loaded models, so that no client can make
more series.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import astuple
from typing import TYPE_CHECKING

from service.errors import ServiceError
from service.exposition import HISTOGRAMS, Snapshot, added, key, process_snapshot

if TYPE_CHECKING:  # the supervisor's admission has statistics, too, but no engine
    from service.classifier import Classification, ModelInfo

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))


class _Histogram:
    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)  # the last one is for everything above
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def numbers(self) -> list[float]:
        return [*self._counts, self._sum]


class Metrics:
    """One process's statistics since it started."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.queue_depth: Callable[[], int] = lambda: 0
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._models: list[ModelInfo] = []
        self._by_model: defaultdict[str, list[_Histogram]] = defaultdict(
            lambda: [_Histogram(bounds) for _, _, bounds in HISTOGRAMS]
        )

    def note_models(self, models: "Iterable[ModelInfo]") -> None:
        """Report these models as loaded."""
        self._models = list(models)

    def note_answer(self, route: str, method: str, status: int) -> None:
        """Count one answer. `route` is one of the server's own paths, or `other`."""
        self._counts["resnet_requests", route, method if method in _METHODS else "other", str(status)] += 1

    def note_refusal(self, error: ServiceError) -> None:
        """Count one request that failed in a way we know."""
        self._counts["resnet_refusals", error.code] += 1

    def note_classification(self, model: str, classification: "Classification", total_s: float) -> None:
        """Count one classified picture and where its time went."""
        self._counts["resnet_pictures", classification.image.format] += 1
        batch_size, decode, queue, inference, total = self._by_model[model]
        batch_size.observe(classification.batch_size)
        decode.observe(classification.decode_s)
        queue.observe(classification.queue_s)
        inference.observe(classification.inference_s)
        total.observe(total_s)

    def snapshot(self) -> Snapshot:
        """Return everything that was counted, and what this process takes of the machine."""
        counters: dict[str, list[float]] = {key(*labels): [count] for labels, count in self._counts.items()}
        for model, histograms in self._by_model.items():
            for (name, _, _), histogram in zip(HISTOGRAMS, histograms, strict=True):
                counters[key(name, model)] = histogram.numbers()
        gauges = {
            "resnet_requests_in_flight": float(self.in_flight),
            "resnet_queue_depth": float(self.queue_depth()),
            "resnet_processes": 1.0 if self._models else 0.0,
        }
        models = [list(astuple(model)) for model in self._models]
        return added((Snapshot(counters=counters, gauges=gauges, models=models), process_snapshot()))
