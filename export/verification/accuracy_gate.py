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

_LEAST = 1e-7  # probability, about the resolution of float32


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

    def divergence(self, engine: Engine) -> float:
        """Return the mean Kullback-Leibler divergence of this engine's probabilities from fp32's, in nats.

        It uses all probabilities of each image. Lost labels are few on a small set, and so depend on chance.
        """
        results = (self.expected, answers_of(engine, self.pixels))
        expected, found = (np.clip(result.probabilities.astype(np.float64), _LEAST, 1) for result in results)
        divergence = (expected * np.log(expected / found)).sum(axis=1).mean()
        return max(0.0, float(np.nan_to_num(divergence, nan=np.inf)))

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
