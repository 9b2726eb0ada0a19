"""What each of a picture's best labels rests on: the class-activation maps that came with the classification."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.classifier import Classification, Prediction
from service.errors import LabelNotInTop
from service.heat_map import map_as_png, overlay_as_png
from service.preprocess import Pixels

OUTPUT = "class_maps"


@dataclass(frozen=True, slots=True)
class Explanation:
    """One label, and where the network saw it: `heat` (h, w) is what speaks for it at each place of `pixels`."""

    prediction: Prediction
    heat: NDArray[np.float32]
    pixels: Pixels


def explanations(classification: Classification) -> list[Explanation]:
    """Return the best labels with their maps, best first. Raises ValueError if it was not a picture that was asked."""
    pixels, maps = classification.pixels, classification.outputs[OUTPUT]
    if pixels is None:
        raise ValueError("there are no pixels to explain")
    pairs = zip(classification.predictions, maps, strict=True)
    return [Explanation(prediction, heat, pixels) for prediction, heat in pairs]


def chosen(found: Sequence[Explanation], *, label: str | None, index: int | None) -> list[Explanation]:
    """Return those that were asked for: one by its label or its index, else all. Raises LabelNotInTop."""
    if label is None and index is None:
        return list(found)
    picked = [one for one in found if one.prediction.label == label or one.prediction.index == index]
    if not picked:
        labels = ", ".join(one.prediction.label for one in found)
        raise LabelNotInTop(f"There are maps of the best labels only; for this picture: {labels}.")
    return picked[:1]


def explanation_as_json(explanation: Explanation) -> dict[str, Any]:
    """Return a label with its map as a grid, and as a PNG (a data URI) to lay over what the network saw."""
    best = explanation.prediction
    height, width = explanation.pixels.shape[:2]
    png = base64.b64encode(map_as_png(explanation.heat, (height, width))).decode()
    return {
        "label": best.label,
        "index": best.index,
        "probability": best.probability,
        "map": np.ascontiguousarray(explanation.heat),
        "png": f"data:image/png;base64,{png}",
    }


def overlay(explanation: Explanation) -> bytes:
    """Return the picture as the network saw it, under the map, as a PNG."""
    return overlay_as_png(explanation.pixels, explanation.heat)
