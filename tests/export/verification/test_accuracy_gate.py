"""The gate: points of top-1 where there are labels, agreement where there are none, and never a NaN let through."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from export.verification.accuracy_gate import AccuracyGate, gate_violation
from service.model_files.card import PrecisionLoss


class Says:
    """An engine whose answers are known: the class that each image's first value names, moved by so much."""

    provider = "CPUExecutionProvider"

    def __init__(self, wrong: int = 0, not_a_number: bool = False) -> None:
        self.wrong, self.not_a_number = wrong, not_a_number

    def run(self, images: NDArray[np.uint8], outputs: tuple[str, ...]) -> list[NDArray[Any]]:
        assert outputs == ("probabilities", "top_indices", "energy")
        value = images[:, 0, 0, 0].astype(np.int64)
        best = np.where(value < self.wrong, 999, value)
        probabilities = np.full((len(images), 3), np.nan if self.not_a_number else 0.3, np.float32)
        return [probabilities, best[:, None], np.zeros((len(images), 1), np.float32)]


def gate(labelled: bool) -> AccuracyGate:
    """Two hundred images, of which fp32 gets the first hundred wrong."""
    pixels = np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1)
    labels = np.where(np.arange(200) < 100, 500, np.arange(200)) if labelled else None
    return AccuracyGate(pixels, labels, "numbers", Says())  # type: ignore[arg-type]


def loss_of(engine: Says, *, labelled: bool) -> PrecisionLoss:
    return gate(labelled).judge(engine)[0]  # type: ignore[arg-type]


def test_with_labels_points_of_top1_count() -> None:
    loss = loss_of(Says(wrong=102), labelled=True)
    assert loss.top1_loss == pytest.approx(1.0)  # 2 of 200 that fp32 had right
    assert loss.agreement == pytest.approx(98 / 200)
    assert (loss.images, loss.dataset, loss.provider) == (200, "numbers", "CPUExecutionProvider")
    assert gate_violation(loss, "int8", 1.01) is None
    assert gate_violation(loss, "int8", 0.5) == (
        "int8 loses 1.00 points of top-1 on 200 images of numbers, and 0.5 are allowed"
    )


def test_without_labels_agreement_counts() -> None:
    loss = loss_of(Says(wrong=5), labelled=False)
    assert loss.top1_loss is None
    assert gate_violation(loss, "fp16", 0.5) == (
        "fp16 keeps the label of fp32 for 97.5% of 200 images of numbers, and 98% are required without labels"
    )
    assert gate_violation(loss_of(Says(wrong=4), labelled=False), "fp16", 0.5) is None


@pytest.mark.parametrize("labelled", [True, False])
def test_answers_that_are_not_numbers_are_all_wrong(labelled: bool) -> None:
    loss = loss_of(Says(not_a_number=True), labelled=labelled)
    assert loss.agreement == 0
    assert gate_violation(loss, "fp16", 0.5)


@pytest.mark.parametrize("labelled", [True, False])
def test_a_limit_of_100_lets_everything_pass(labelled: bool) -> None:
    assert gate_violation(loss_of(Says(wrong=200), labelled=labelled), "int8", 100) is None


class Sure(Says):
    """An engine that gives every image the same probabilities."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.probabilities = np.array(probabilities, np.float32)

    def run(self, images: NDArray[np.uint8], outputs: tuple[str, ...]) -> list[NDArray[Any]]:
        _, best, energy = super().run(images, outputs)
        return [np.tile(self.probabilities, (len(images), 1)), best, energy]


def test_the_divergence_is_that_of_the_probabilities_and_not_of_the_labels() -> None:
    pixels = np.zeros((200, 1, 1, 1), np.uint8)
    measured = AccuracyGate(pixels, None, "numbers", Sure(0.7, 0.2, 0.1))  # type: ignore[arg-type]
    engines = (Sure(0.7, 0.2, 0.1), Sure(0.65, 0.25, 0.1), Sure(0.4, 0.3, 0.3), Sure(np.nan, 0.5, 0.5))
    same, close, far, none = (measured.divergence(engine) for engine in engines)  # type: ignore[arg-type]
    assert same == pytest.approx(0, abs=1e-9)
    assert close == pytest.approx(0.7 * np.log(0.7 / 0.65) + 0.2 * np.log(0.2 / 0.25), rel=1e-4)
    assert close < far < none == float("inf")
    assert all(measured.judge(engine)[0].agreement == 1 for engine in engines[:3])  # type: ignore[arg-type]
