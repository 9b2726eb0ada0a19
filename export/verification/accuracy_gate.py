"""The required accuracy of a file of lower precision, relative to fp32, measured with the engine that serves.

With labels the limit is on the lost points of top-1; without labels, on the share of images that keep fp32's label.
Calibration images are not used: a network that was calibrated on black images classifies those well.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from export.verification.evaluation import Answers, answers_of
from service.engine.engine import Engine
from service.model_files.card import PrecisionLoss
from training.data.image_arrays import Images

SMALLEST_AGREEMENT = 0.98  # share of images that keep fp32's label, for images without labels
NO_LIMIT = 100.0  # points of top-1: no loss is larger


@dataclass(frozen=True)
class AccuracyGate:
    """Images, uint8 (N, height, width, 3), for measuring an engine, and fp32's results for them."""

    pixels: Images
    labels: NDArray[np.int64] | None
    name: str
    fp32: Engine

    @cached_property
    def expected(self) -> Answers:
        return answers_of(self.fp32, self.pixels)

    def judge(self, engine: Engine) -> tuple[PrecisionLoss, Answers]:
        """Return the losses of this engine, and its results."""
        answers = answers_of(engine, self.pixels)
        loss = PrecisionLoss(
            agreement=float((answers.best[:, 0] == self.expected.best[:, 0]).mean()),
            top1_loss=None if self.labels is None else 100 * (self._top1(self.expected) - self._top1(answers)),
            images=len(self.pixels),
            dataset=self.name,
            provider=engine.provider,
        )
        return loss, answers

    def score(self, engine: Engine) -> tuple[float, float]:
        """Return the quality of this engine: kept labels first, then the distance of its probabilities from fp32's."""
        loss, answers = self.judge(engine)
        distance = np.abs(answers.probabilities - self.expected.probabilities).mean()
        closeness = -float(np.nan_to_num(distance, nan=1.0))
        return (loss.agreement if loss.top1_loss is None else -loss.top1_loss), closeness

    def _top1(self, answers: Answers) -> float:
        return float((answers.best[:, 0] == self.labels).mean())


def gate_violation(loss: PrecisionLoss, precision: str, max_loss: float) -> str | None:
    """Return by how much a file misses the requirement, in one phrase; None if it passes.

    `max_loss` is in points of top-1; with 100 every file passes.
    """
    if max_loss >= NO_LIMIT:
        return None
    where = f"{loss.images:,} images of {loss.dataset}"
    if loss.top1_loss is not None and not loss.top1_loss <= max_loss:
        return f"{precision} loses {loss.top1_loss:.2f} points of top-1 on {where}, and {max_loss:g} are allowed"
    if loss.top1_loss is None and not loss.agreement >= SMALLEST_AGREEMENT:
        return (
            f"{precision} keeps the label of fp32 for {loss.agreement:.1%} of {where}, and {SMALLEST_AGREEMENT:.0%} "
            "are required without labels"
        )
    return None
