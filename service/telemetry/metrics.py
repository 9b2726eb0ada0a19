"""All counters and histograms of one process, and the only module that changes them.

They are plain numbers that only the event loop changes; a snapshot is made when the supervisor requests one. This costs
a request 3 µs instead of 25. Label values come from fixed sets or from the loaded models, so that no client can create
series.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING

from service.errors import ServiceError
from service.telemetry.histogram import Histogram
from service.telemetry.model_statistics import InferenceCounts, Row
from service.telemetry.predictions import PredictionCounts
from service.telemetry.prometheus import HISTOGRAMS, Snapshot, key, merge, process_snapshot

if TYPE_CHECKING:  # the supervisor uses this module as well, without an engine
    from service.inference.results import Classification, ModelInfo, Prediction

# Other methods count as `other`, in metrics and in the log, so that no client can create series.
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))
# Requests of one image are counted in groups of this size: in a loop each costs half as much.
_COUNTED_TOGETHER = 64


@dataclass(slots=True)
class _Answered:
    """The counters of one classified image."""

    model: "ModelInfo"
    format: str
    batch_size: int
    decode_s: float
    queue_s: float
    inference_s: float
    total_s: float
    when: float
    best: "Prediction | None"  # None where predictions are not counted


Readers = Mapping[str, Callable[[], float]]


@dataclass(frozen=True, slots=True)
class Sources:
    """Numbers that other parts of the process keep, by the name of their metric; each snapshot reads them."""

    counters: Readers = field(default_factory=dict)
    gauges: Readers = field(default_factory=dict)


class Metrics:
    """The statistics of one process since its start."""

    def __init__(
        self,
        *,
        sources: Sources | None = None,
        counted_labels: int = 0,
        collect_all: Callable[[], Awaitable[Snapshot | None]] | None = None,
    ) -> None:
        """`collect_all` returns the statistics of all processes, or None if they are unknown.

        `counted_labels` labels of each model have their own counter of predictions; 0: predictions are not counted.
        """
        self.in_flight = 0
        self._sources = [] if sources is None else [sources]
        self._predictions = PredictionCounts(counted_labels) if counted_labels else None
        self._collect_all = collect_all
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._models: list[ModelInfo] = []
        self._inference = InferenceCounts()
        self._uncounted: list[_Answered] = []
        self._by_model: defaultdict[str, list[Histogram]] = defaultdict(
            lambda: [Histogram(bounds) for _, _, bounds in HISTOGRAMS]
        )

    def add(self, sources: Sources) -> None:
        """Add numbers that each snapshot reads."""
        self._sources.append(sources)

    def note_models(self, models: "Iterable[ModelInfo]") -> None:
        """Set the loaded models."""
        self._models = list(models)

    def note_answer(self, route: str, method: str, status: int) -> None:
        """Count one response. `route` is one of the server's own paths, or `other`."""
        self._counts["resnet_requests", route, method if method in METHODS else "other", str(status)] += 1

    def log_rejected(self, status: int, code: str) -> None:
        """Count a rejection that happened before the request reached the application."""
        self.note_answer("other", "other", status)
        self._counts["resnet_refusals", code] += 1

    def note_refusal(self, error: ServiceError) -> None:
        """Count one request with an expected failure."""
        self.note_refusal_code(error.code)

    def note_refusal_code(self, code: str) -> None:
        """Count one request that was refused with this error code."""
        self._counts["resnet_refusals", code] += 1

    def note_classification(self, model: "ModelInfo", classification: "Classification", total_s: float) -> None:
        """Count one classified image and its timings."""
        self._uncounted.append(
            _Answered(
                model,
                classification.image.format,
                classification.batch_size,
                classification.decode_s,
                classification.queue_s,
                classification.inference_s,
                total_s,
                time.time(),
                None if self._predictions is None or not classification.predictions else classification.predictions[0],
            )
        )
        if len(self._uncounted) >= _COUNTED_TOGETHER:
            self._count_images()

    def _count_images(self) -> None:
        for row in self._uncounted:
            self._inference.note(row.model.served_as, (row,), row.total_s, 0.0, row.when)
            self._by_model[row.model.name][-1].observe(row.total_s)
            self._count_row(row.model, row.format, row)
            if row.best is not None and self._predictions is not None:
                self._predictions.note(row.model.name, row.best)
        self._uncounted.clear()

    def _count_row(self, model: "ModelInfo", image_format: str, row: Row) -> None:
        self._counts["resnet_pictures", image_format] += 1
        batch_size, decode, queue, inference, _ = self._by_model[model.name]
        batch_size.observe(row.batch_size)
        decode.observe(row.decode_s)
        queue.observe(row.queue_s)
        inference.observe(row.inference_s)

    def note_inference(
        self, model: "ModelInfo", rows: "Sequence[Classification]", total_s: float, output_s: float = 0.0
    ) -> None:
        """Count one request of several images, or rows of tensors, and its timings."""
        self._inference.note(model.served_as, rows, total_s, output_s, time.time())
        self._by_model[model.name][-1].observe(total_s)
        for row in rows:
            self._count_row(model, row.image.format, row)
            if self._predictions is not None and row.predictions:
                self._predictions.note(model.name, row.predictions[0])

    def note_failed_inference(self, model: "ModelInfo", total_s: float) -> None:
        """Count one request that the model failed on."""
        self._inference.note_failure(model.served_as, total_s)

    async def total(self) -> Snapshot:
        """Return the statistics of all processes, or of this one if the others' are unknown."""
        total = None if self._collect_all is None else await self._collect_all()
        return self.snapshot() if total is None else total

    def snapshot(self) -> Snapshot:
        """Return all statistics, and the resources that this process uses."""
        self._count_images()
        counters: dict[str, list[float]] = {key(*labels): [count] for labels, count in self._counts.items()}
        for model, histograms in self._by_model.items():
            for (name, _, _), histogram in zip(HISTOGRAMS, histograms, strict=True):
                counters[key(name, model)] = histogram.numbers()
        gauges = {
            "resnet_requests_in_flight": float(self.in_flight),
            "resnet_processes": 1.0 if self._models else 0.0,
        }
        for sources in self._sources:
            counters |= {key(name): [float(read())] for name, read in sources.counters.items()}
            gauges |= {name: float(read()) for name, read in sources.gauges.items()}
        counters |= self._inference.numbers
        if self._predictions is not None:
            counters |= self._predictions.numbers()
        models = [list(astuple(model)) for model in self._models]
        own = Snapshot(counters=counters, gauges=gauges, models=models, last_ms=self._inference.last_ms)
        return merge((own, process_snapshot()))
