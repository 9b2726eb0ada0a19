"""Which score tells images of the model's classes from others, and the threshold for a confident answer.

All of it is measured on the exported file. The threshold is the score that 95% of the held-out images reach. The score
is the one with the largest AUROC (area under the ROC curve): of held-out images against a part of the unknown images
where there are any, else of held-out images with a right answer against those with a wrong one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.verification.evaluation import ENGINE_BATCH, LabelledImages
from service.engine.engine import Engine
from service.images.preprocessing import Pixels
from service.model_files.card import Confidence
from service.model_files.confidence import ENERGY, SCORES, Score, scores_of
from training.data.image_arrays import Images

SHARE_BELOW = 0.05  # of the known held-out images, whose answers will not count as confident
_LEAST_IMAGES = 100  # of which a 5% quantile says something
_CHOOSING_SHARE = 5  # every fifth unknown image takes part in the choice of the score, and in nothing else
_DEVIATIONS_95 = 1.96

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Unknown:
    """Images of none of the model's classes: uint8 (N, H, W, 3), and the name of their data set."""

    pixels: Pixels
    name: str


@dataclass(frozen=True, slots=True)
class Auroc:
    """The probability that a positive scores higher than a negative, and its 95% interval (DeLong et al. 1988)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class _Scored:
    of: dict[Score, Scores]  # each (N,)
    best: NDArray[np.int64]  # (N,)

    def part(self, chosen: NDArray[np.bool_]) -> dict[Score, Scores]:
        return {score: values[chosen] for score, values in self.of.items()}


def measure_confidence(
    engine: Engine, held_out: LabelledImages | None, test: LabelledImages | None, unknown: Unknown | None
) -> Confidence | None:
    """Return the card's confidence, or None with too few held-out images for a threshold.

    The AUROC in it compares images that had no part in the choice of the score: `test`, or else `held_out`, with four
    fifths of `unknown`.
    """
    if held_out is None or len(held_out.labels) < _LEAST_IMAGES:
        return None
    known = _scored(engine, held_out.pixels)
    if unknown is None:
        is_right = known.best == held_out.labels
        score = _best_score(known.part(is_right), known.part(~is_right))
        return Confidence(score=score, threshold=_threshold(known.of[score]), known_images=len(held_out.labels))
    strange = _scored(engine, unknown.pixels)
    is_choosing = np.arange(len(unknown.pixels)) % _CHOOSING_SHARE == 0
    score = _best_score(known.of, strange.part(is_choosing))
    compared = known if test is None or test is held_out else _scored(engine, test.pixels)
    others = strange.part(~is_choosing)[score]
    found = auroc(compared.of[score], others)
    return Confidence(
        score=score,
        threshold=_threshold(known.of[score]),
        known_images=len(held_out.labels),
        auroc=found.value,
        auroc_interval=(found.low, found.high),
        compared_known_images=len(compared.best),
        compared_unknown_images=len(others),
        unknown=unknown.name,
    )


def auroc(positives: Scores, negatives: Scores) -> Auroc:
    """Return the area under the ROC curve of two samples of scores, (N,) and (M,), each of at least one. Ties: half."""
    above = _share_below(positives, negatives)  # of the negatives, for each positive
    below = 1 - _share_below(negatives, positives)
    value = float(above.mean())
    spread = sum(float(part.var(ddof=1)) / len(part) for part in (above, below) if len(part) > 1)
    margin = _DEVIATIONS_95 * spread**0.5
    return Auroc(value, max(0.0, value - margin), min(1.0, value + margin))


def _share_below(values: Scores, others: Scores) -> Scores:
    """Return for each value the share of the others that are smaller; equal ones count half."""
    ordered = np.sort(others)
    smaller, not_larger = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return np.asarray((smaller + not_larger) / (2 * len(others)))


def _best_score(positives: dict[Score, Scores], negatives: dict[Score, Scores]) -> Score:
    """Return the score with the largest AUROC; the largest probability where there is nothing to compare."""
    if not len(positives["energy"]) or not len(negatives["energy"]):
        return "largest_probability"
    return max(SCORES, key=lambda score: auroc(positives[score], negatives[score]).value)


def _threshold(scores: Scores) -> float:
    """Return the largest score that at most 5% of these are below."""
    ordered = np.sort(scores)
    return float(ordered[int(SHARE_BELOW * len(ordered))])


def _scored(engine: Engine, pixels: Images) -> _Scored:
    parts = [
        engine.run(np.ascontiguousarray(pixels[start : start + ENGINE_BATCH]), ("probabilities", "top_indices", ENERGY))
        for start in range(0, len(pixels), ENGINE_BATCH)
    ]
    probabilities, top_indices, energy = (np.concatenate(part) for part in zip(*parts, strict=True))
    best = top_indices[:, 0]
    largest = probabilities[np.arange(len(best)), best]
    return _Scored({score: scores_of(score, largest, energy).astype(np.float64) for score in SCORES}, best)
