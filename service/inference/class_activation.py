"""What each of an image's best labels rests on: the class-activation maps that came with the classification."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import LabelNotInTop
from service.images.preprocessing import ImageInfo, decode_to_show
from service.images.resizing import Box, part_seen
from service.inference.classifier import Classification, Classifier, Prediction
from service.inference.heat_map import map_as_png, overlay_as_png

OUTPUT = "class_maps"
LONGEST_SIDE = 512  # pixels, of an image with a map over it
_SMALL = LONGEST_SIDE // 2  # a smaller image is enlarged


@dataclass(frozen=True, slots=True)
class Explanation:
    """One label, and where the network saw it: `heat` (h, w) is what speaks for it at each place of what it saw."""

    prediction: Prediction
    heat: NDArray[np.float32]


def explanations(classification: Classification) -> list[Explanation]:
    """Return the best labels with their maps, best first."""
    pairs = zip(classification.predictions, classification.outputs[OUTPUT], strict=True)
    return [Explanation(prediction, heat) for prediction, heat in pairs]


def chosen(found: Sequence[Explanation], *, label: str | None, index: int | None) -> list[Explanation]:
    """Return the explanation of one label or index, or all without either. Raises LabelNotInTop."""
    if label is None and index is None:
        return list(found)
    picked = [one for one in found if one.prediction.label == label or one.prediction.index == index]
    if not picked:
        labels = ", ".join(one.prediction.label for one in found)
        raise LabelNotInTop(f"There are maps of the best labels only; for this image: {labels}.")
    return picked[:1]


def explanation_as_json(explanation: Explanation) -> dict[str, Any]:
    """Return a label with its map as a grid, and as a PNG (a data URI) to scale over what the network saw."""
    best = explanation.prediction
    return {
        "label": best.label,
        "index": best.index,
        "probability": best.probability,
        "map": np.ascontiguousarray(explanation.heat),
        "png": f"data:image/png;base64,{base64.b64encode(map_as_png(explanation.heat)).decode()}",
    }


def crop_seen(classifier: Classifier, image: ImageInfo) -> Box:
    """Return the part of an image, in its pixels, that a model saw: left, top, right, bottom."""
    steps = classifier.card.preprocessing
    return part_seen(image.width, image.height, steps.shorter_side, steps.crop)


def overlay(explanation: Explanation, content: bytes, classifier: Classifier, image: ImageInfo) -> bytes:
    """Return an uploaded image, upright and whole, with the map over what the network saw of it, as a PNG.

    Its longer side has at most `LONGEST_SIDE` pixels. Raises BadImage.
    """
    width, height = _size_shown(image.width, image.height)
    shown = decode_to_show(content, max(width, height), classifier.limits)
    pixels = shown.resized((height, width), (0, 0, image.width, image.height))
    across, down = width / image.width, height / image.height
    left, top, right, bottom = crop_seen(classifier, image)
    return overlay_as_png(pixels, explanation.heat, (left * across, top * down, right * across, bottom * down))


def _size_shown(width: int, height: int) -> tuple[int, int]:
    """Return width and height of what is drawn: whole multiples of a small image's, a large one's made smaller."""
    longest = max(width, height)
    if longest <= LONGEST_SIDE:
        times = max(1, -(-_SMALL // longest))
        return width * times, height * times
    return max(1, round(width * LONGEST_SIDE / longest)), max(1, round(height * LONGEST_SIDE / longest))
