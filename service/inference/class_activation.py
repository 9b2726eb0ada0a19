"""Explanations: the class activation maps of an image's best labels, as JSON and as overlays."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import LabelNotInTop
from service.images.preprocessing import ImageInfo, decode_to_show
from service.images.resizing import Box, part_seen
from service.inference.classifier import Classifier
from service.inference.heat_map import map_as_png, overlay_as_png
from service.inference.results import Classification, Prediction

OUTPUT = "class_maps"
LONGEST_SIDE = 512  # pixels, of an image with a map over it
_SMALL = LONGEST_SIDE // 2  # a smaller image is enlarged


@dataclass(frozen=True, slots=True)
class Explanation:
    """One label and its class activation map: `heat`, float32 (h, w), the evidence for the label in each cell."""

    prediction: Prediction
    heat: NDArray[np.float32]


def explanations(classification: Classification) -> list[Explanation]:
    """Return the best labels with their class activation maps, best first."""
    pairs = zip(classification.predictions, classification.outputs[OUTPUT], strict=True)
    return [Explanation(prediction, heat) for prediction, heat in pairs]


def chosen(found: Sequence[Explanation], *, label: str | None, index: int | None) -> list[Explanation]:
    """Return the explanation of a label or class index, or all if neither is given. Raises LabelNotInTop."""
    if label is None and index is None:
        return list(found)
    picked = [one for one in found if one.prediction.label == label or one.prediction.index == index]
    if not picked:
        labels = ", ".join(one.prediction.label for one in found)
        raise LabelNotInTop(f"Only the best labels have a map; choose one of: {labels}.")
    return picked[:1]


def explanation_as_json(explanation: Explanation) -> dict[str, Any]:
    """Return a label with its map as a grid, and as a PNG (a data URI) to scale over the crop that the model saw."""
    best = explanation.prediction
    return {
        "label": best.label,
        "index": best.index,
        "probability": best.probability,
        "map": np.ascontiguousarray(explanation.heat),
        "png": f"data:image/png;base64,{base64.b64encode(map_as_png(explanation.heat)).decode()}",
    }


def crop_seen(classifier: Classifier, image: ImageInfo) -> Box:
    """Return the part of an image that the model saw, in pixels: left, top, right, bottom."""
    steps = classifier.card.preprocessing
    return part_seen(image.width, image.height, steps.shorter_side, steps.crop)


def overlay(explanation: Explanation, content: bytes, classifier: Classifier, image: ImageInfo) -> bytes:
    """Return a PNG of the whole uploaded image, upright, with the map over the crop that the model saw.

    Its longer side has at most `LONGEST_SIDE` pixels. Raises BadImage.
    """
    width, height = _size_shown(image.width, image.height)
    shown = decode_to_show(content, max(width, height), classifier.limits)
    pixels = shown.resized((height, width), (0, 0, image.width, image.height))
    across, down = width / image.width, height / image.height
    left, top, right, bottom = crop_seen(classifier, image)
    return overlay_as_png(pixels, explanation.heat, (left * across, top * down, right * across, bottom * down))


def _size_shown(width: int, height: int) -> tuple[int, int]:
    """Return the overlay's width and height: a small image is enlarged by an integer, a large one is reduced."""
    longest = max(width, height)
    if longest <= LONGEST_SIDE:
        times = max(1, -(-_SMALL // longest))
        return width * times, height * times
    return max(1, round(width * LONGEST_SIDE / longest)), max(1, round(height * LONGEST_SIDE / longest))
