"""Every counter and histogram of one process, and the one place that touches them.

They are plain numbers that only the event loop changes, and become a snapshot when the supervisor asks: that costs a
request 3 µs instead of 25. Label values come from fixed sets or from the loaded models, so that no client can make
more series.
"""

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from service.errors import ServiceError
from service.telemetry.model_statistics import InferenceCounts, Row
from service.telemetry.prometheus import HISTOGRAMS, Snapshot, added, key, process_snapshot

if TYPE_CHECKING:  # the supervisor's admission has statistics, too, but no engine
    from service.inference.results import Classification, ModelInfo

# Other methods count as `other`, in metrics and in the log, so that no client can create series.
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))
# Requests of one image are counted so many at a time: one after the other in a loop they cost half as much each.
_COUNTED_TOGETHER = 64


@dataclass(slots=True)
class _Answered:
    """What is counted of one image."""

    model: "ModelInfo"
    format: str
    batch_size: int
    decode_s: float
    queue_s: float
    inference_s: float
    total_s: float
    when: float


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

    def __init__(
        self,
        *,
        queue_depth: Callable[[], int] = lambda: 0,
        queue_age_s: Callable[[], float] = lambda: 0.0,
        dropped_log_lines: Callable[[], int] = lambda: 0,
        dropped_traces: Callable[[], int] = lambda: 0,
        collect_all: Callable[[], Awaitable[Snapshot | None]] | None = None,
    ) -> None:
        """`collect_all` returns the statistics of all processes, or None if they are not known."""
        self.in_flight = 0
        self._queue_depth = queue_depth
        self._queue_age_s = queue_age_s
        self._dropped_log_lines = dropped_log_lines
        self._dropped_traces = dropped_traces
        self._collect_all = collect_all
        self._counts: Counter[tuple[str, ...]] = Counter()
        self._models: list[ModelInfo] = []
        self._inference = InferenceCounts()
        self._uncounted: list[_Answered] = []
        self._by_model: defaultdict[str, list[_Histogram]] = defaultdict(
            lambda: [_Histogram(bounds) for _, _, bounds in HISTOGRAMS]
        )

    def note_models(self, models: "Iterable[ModelInfo]") -> None:
        """Report these models as loaded."""
        self._models = list(models)

    def note_answer(self, route: str, method: str, status: int) -> None:
        """Count one answer. `route` is one of the server's own paths, or `other`."""
        self._counts["resnet_requests", route, method if method in METHODS else "other", str(status)] += 1

    def log_rejected(self, status: int, code: str) -> None:
        """Count what was refused before it became a request."""
        self.note_answer("other", "other", status)
        self._counts["resnet_refusals", code] += 1

    def note_refusal(self, error: ServiceError) -> None:
        """Count one request that failed in a way we know."""
        self.note_refusal_code(error.code)

    def note_refusal_code(self, code: str) -> None:
        """Count one request that was refused for a reason with this code."""
        self._counts["resnet_refusals", code] += 1

    def note_classification(self, model: "ModelInfo", classification: "Classification", total_s: float) -> None:
        """Count one classified image and where its time went."""
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
            )
        )
        if len(self._uncounted) >= _COUNTED_TOGETHER:
            self._count_images()

    def _count_images(self) -> None:
        for row in self._uncounted:
            self._inference.note(row.model.served_as, (row,), row.total_s, 0.0, row.when)
            self._by_model[row.model.name][-1].observe(row.total_s)
            self._count_row(row.model, row.format, row)
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
        """Count one request of several images, or rows of tensors, and where their time went."""
        self._inference.note(model.served_as, rows, total_s, output_s, time.time())
        self._by_model[model.name][-1].observe(total_s)
        for row in rows:
            self._count_row(model, row.image.format, row)

    def note_failed_inference(self, model: "ModelInfo", total_s: float) -> None:
        """Count one request that a model did not answer."""
        self._inference.note_failure(model.served_as, total_s)

    async def total(self) -> Snapshot:
        """Return the statistics of all processes, or of this one if the others' are not known."""
        total = None if self._collect_all is None else await self._collect_all()
        return self.snapshot() if total is None else total

    def snapshot(self) -> Snapshot:
        """Return everything that was counted, and what this process takes of the machine."""
        self._count_images()
        counters: dict[str, list[float]] = {key(*labels): [count] for labels, count in self._counts.items()}
        for model, histograms in self._by_model.items():
            for (name, _, _), histogram in zip(HISTOGRAMS, histograms, strict=True):
                counters[key(name, model)] = histogram.numbers()
        counters[key("resnet_log_lines_dropped")] = [self._dropped_log_lines()]
        counters[key("resnet_traces_dropped")] = [self._dropped_traces()]
        gauges = {
            "resnet_requests_in_flight": float(self.in_flight),
            "resnet_queue_depth": float(self._queue_depth()),
            "resnet_queue_age_seconds": self._queue_age_s(),
            "resnet_processes": 1.0 if self._models else 0.0,
        }
        counters |= self._inference.numbers
        models = [list(astuple(model)) for model in self._models]
        own = Snapshot(counters=counters, gauges=gauges, models=models, last_ms=self._inference.last_ms)
        return added((own, process_snapshot()))
