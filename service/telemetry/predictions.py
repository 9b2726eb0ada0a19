"""Counts of predicted labels and of their probabilities, which show drift of the images that clients send.

The series are limited: the first labels of each model's card have one each, and all further labels share `other`. The
place of a label in its card decides, so all processes count the same ones.
"""

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from service.telemetry.histogram import Histogram
from service.telemetry.prometheus import CONFIDENCE, CONFIDENCES, PREDICTIONS, key

if TYPE_CHECKING:  # the supervisor has statistics, too, but no engine
    from service.inference.results import Prediction

OTHER = "other"


class PredictionCounts:
    """What one process has counted of the best label of each image."""

    def __init__(self, counted_labels: int) -> None:
        """The first `counted_labels` labels of each model have a series of their own."""
        self._counted_labels = counted_labels
        self._labels: Counter[tuple[str, str]] = Counter()
        self._confidences: defaultdict[str, Histogram] = defaultdict(lambda: Histogram(CONFIDENCES))

    def note(self, model: str, best: "Prediction") -> None:
        """Count the best label of one image."""
        label = best.label.replace("\n", " ") if best.index < self._counted_labels else OTHER
        self._labels[model, label] += 1
        self._confidences[model].observe(best.probability)

    def numbers(self) -> dict[str, list[float]]:
        """Return all counts by their keys."""
        found: dict[str, list[float]] = {key(PREDICTIONS, *names): [count] for names, count in self._labels.items()}
        return found | {key(CONFIDENCE, model): counts.numbers() for model, counts in self._confidences.items()}
