"""The score that separates images of the model's classes from others, and the threshold for a confident answer.

All of it is measured on the exported file. The threshold is the score that 95% of the held-out images reach. The score
is the one with the largest AUROC (area under the ROC curve): of held-out images against a part of the unknown images
where there are any, else of held-out images with a right answer against those with a wrong one.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.verification.evaluation import Answers, answers_of
from export.verification.labelled_images import Evidence
from service.engine.engine import Engine
from service.images.preprocessing import Pixels
from service.model_files.card import Confidence
from service.model_files.confidence import SCORES, Score, scores_of

SHARE_BELOW = 0.05  # of the known held-out images, whose results do not count as confident
_LEAST_IMAGES = 100  # for a meaningful 5% quantile
_CHOOSING_SHARE = 5  # every fifth unknown image is used only for the choice of the score
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


def measure_confidence(
    engine: Engine, evidence: Evidence, test_answers: Answers | None, unknown: Unknown | None
) -> Confidence | None:
    """Return the card's confidence, or None with too few held-out images for a threshold.

    `test_answers` are this engine's results for `evidence.test`, None without it, so that each image is run once. The
    AUROC is of images that had no part in the choice of the score: the test images, or else the held-out ones, with
    four fifths of `unknown`.
    """
    held_out = evidence.held_out
    if held_out is None or len(held_out.labels) < _LEAST_IMAGES:
        return None
    answers = test_answers if held_out is evidence.test else None
    answers = answers or answers_of(engine, held_out.pixels)
    known = _scores_of(answers)
    if unknown is None:
        is_right = answers.best[:, 0] == held_out.labels
        score = _best_score(_part(known, is_right), _part(known, ~is_right))
        return Confidence(score=score, threshold=_threshold(known[score]), known_images=len(held_out.labels))
    unfamiliar = _scores_of(answers_of(engine, unknown.pixels))
    is_choosing = np.arange(len(unknown.pixels)) % _CHOOSING_SHARE == 0
    score = _best_score(known, _part(unfamiliar, is_choosing))
    compared = known if test_answers is None else _scores_of(test_answers)
    others = unfamiliar[score][~is_choosing]
    found = auroc(compared[score], others)
    return Confidence(
        score=score,
        threshold=_threshold(known[score]),
        known_images=len(held_out.labels),
        auroc=found.value,
        auroc_interval=(found.low, found.high),
        compared_known_images=len(compared[score]),
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
    """Return the score with the largest AUROC; the largest probability without images to compare."""
    if not len(positives["energy"]) or not len(negatives["energy"]):
        return "largest_probability"
    return max(SCORES, key=lambda score: auroc(positives[score], negatives[score]).value)


def _threshold(scores: Scores) -> float:
    """Return the largest score that at most 5% of these are below."""
    ordered = np.sort(scores)
    return float(ordered[int(SHARE_BELOW * len(ordered))])


def _scores_of(answers: Answers) -> dict[Score, Scores]:
    """Return each score of N answers, (N,)."""
    largest = answers.probabilities.max(axis=1)
    return {score: scores_of(score, largest, answers.energy).astype(np.float64) for score in SCORES}


def _part(scores: dict[Score, Scores], chosen: NDArray[np.bool_]) -> dict[Score, Scores]:
    return {score: values[chosen] for score, values in scores.items()}
