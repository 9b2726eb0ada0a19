"""How familiar an image looks to a model: one score an image, and whether it is high enough for a confident answer."""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

ENERGY = "energy"  # the model's output: log-sum-exp of the calibrated logits, float32 (N, 1)
Score = Literal["energy", "largest_logit", "largest_probability"]
SCORES: tuple[Score, ...] = ("energy", "largest_logit", "largest_probability")


def needs_energy(score: Score) -> bool:
    """Return whether a score is made from the model's output `energy`."""
    return score != "largest_probability"


def scores_of(
    score: Score, largest: NDArray[np.floating[Any]], energy: NDArray[np.float32] | None
) -> NDArray[np.floating[Any]]:
    """Return the scores of N images, (N,), higher for more familiar ones.

    `largest` (N,): each image's largest probability. `energy` (N, 1): None is enough for the largest probability.
    The largest calibrated logit is the logarithm of the largest probability plus the energy.
    Raises ValueError if the energy is missing.
    """
    if score == "largest_probability":
        return largest
    if energy is None:
        raise ValueError(f"the score {score} needs the model's output `{ENERGY}`")
    return energy[:, 0] if score == "energy" else np.log(largest) + energy[:, 0]
