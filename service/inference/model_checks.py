"""Checks of a model before it serves: the golden example of its card, and warm-up runs that measure its speed.

This module does not depend on images or requests.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import EngineFailed
from service.model_files.card import GOLDEN_TOLERANCE, ModelCard, golden_input

SMALL_MODEL_BATCH = 32
# On a CPU, large models gain 4 to 10% from batches of 2 to 4 images, and nothing from larger batches. Models whose
# batch takes longer than this on one core gain 2%, and need 60 MB more for it (ResNet-50 in fp32).
_LARGE_MODEL_BATCH, _LARGE_MODEL_BATCH_S = 4, 0.06
_SMALL_MODEL_S = 0.005  # of one image
_WARM_UP_RUNS = 3


class ModelCheckFailed(Exception):
    """The model loads, but must not serve. The message is one line for an operator."""


class InferenceEngine(Protocol):
    """The interface of an engine for a classifier."""

    provider: str
    input_height: int
    input_width: int

    @property
    def largest_batch(self) -> int | None: ...

    def run(
        self, images: NDArray[np.uint8], outputs: Sequence[str] = ..., /, *, exclusive: bool = False
    ) -> list[NDArray[Any]]: ...


@dataclass(frozen=True, slots=True)
class WarmUp:
    """The batch size and the timings of a model's first runs, in seconds."""

    max_batch: int
    single_image_s: float  # one image
    longest_batch_s: float


def check_golden(engine: InferenceEngine, card: ModelCard, precision: str | None = None) -> None:
    """Raise ModelCheckFailed unless the model reproduces the golden example of its card within the tolerance.

    `precision` is that of the computation; None: that of the file.
    """
    precision = precision or card.precision
    if card.preprocessing.crop != (engine.input_height, engine.input_width):
        raise ModelCheckFailed(
            f"the card crops to {card.preprocessing.crop}, but the model takes "
            f"{(engine.input_height, engine.input_width)}"
        )
    probabilities, top_indices = _run_golden(engine)
    classes = len(card.labels)
    if probabilities.shape != (1, classes) or top_indices.shape != (1, min(5, classes)):
        raise ModelCheckFailed(
            f"the card has {classes} labels, but the model returns {probabilities.shape[-1]} classes"
        )
    difference = np.abs(probabilities[0] - np.array(card.golden.probabilities, dtype=np.float32)).max()
    tolerance = GOLDEN_TOLERANCE[precision]
    if not difference <= tolerance:  # also when it is not a number
        raise ModelCheckFailed(
            f"the golden example differs from the card by {difference:.2g} in probability, more than the {tolerance:g} "
            f"allowed for {precision}; the file is damaged, or this processor computes it incorrectly"
        )


def _run_golden(engine: InferenceEngine) -> list[NDArray[Any]]:
    try:
        return engine.run(golden_input(engine.input_height, engine.input_width))
    except EngineFailed:
        raise ModelCheckFailed("the model fails on its own golden example") from None


def warm_up(engine: InferenceEngine, max_batch: int | None) -> WarmUp:
    """Run and time the smallest and the largest batch.

    The largest batch is `max_batch`, or follows from the time of one image. Raises ModelCheckFailed.
    """
    image = golden_input(engine.input_height, engine.input_width)
    engine.run(image, exclusive=True)
    single_image_s = min(_seconds_of_a_run(engine, image) for _ in range(_WARM_UP_RUNS))
    largest = _largest_batch(engine, max_batch, single_image_s)
    try:
        longest_s = _seconds_of_a_run(engine, np.repeat(image, largest, axis=0))
    except EngineFailed:
        raise ModelCheckFailed(f"the model fails on a batch of {largest}; set a smaller --max-batch") from None
    return WarmUp(largest, single_image_s, longest_s)


def _largest_batch(engine: InferenceEngine, max_batch: int | None, single_image_s: float) -> int:
    if engine.largest_batch is not None:  # on a GPU, where every model gains from batches
        return min(max_batch or engine.largest_batch, engine.largest_batch)
    return max_batch or largest_batch_on_a_cpu(single_image_s)


def largest_batch_on_a_cpu(single_image_s: float) -> int:
    """Return the largest useful batch of a model that takes `single_image_s` seconds for one image on one core."""
    if single_image_s < _SMALL_MODEL_S:
        return SMALL_MODEL_BATCH
    return min(_LARGE_MODEL_BATCH, max(1, int(_LARGE_MODEL_BATCH_S / single_image_s)))


def _seconds_of_a_run(engine: InferenceEngine, images: NDArray[np.uint8]) -> float:
    started = time.perf_counter()
    engine.run(images)
    return time.perf_counter() - started
