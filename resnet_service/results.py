"""What `Model`, `Client` and `AsyncClient` return and raise: frozen dataclasses, and one exception."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DATA_URL = "data:image/png;base64,"


class ResnetError(Exception):
    """An image or request without an answer. The message is the detail, one sentence for people.

    `code` is for programs and stays: `not_an_image`, `overloaded`, `unreachable`. `status` is the HTTP status, or that
    which a server would answer; None if no server could be reached.
    """

    def __init__(self, detail: str, *, code: str, status: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code
        self.status = status


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answered, and on what."""

    name: str
    version: str
    sha256: str
    provider: str
    precision: str


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the image was; width and height in pixels, as displayed."""

    format: str
    width: int
    height: int
    truncated: bool = False  # a JPEG whose end is missing


@dataclass(frozen=True, slots=True)
class Prediction:
    """One label that the image may have."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True, slots=True)
class Classification:
    """The best labels, best first."""

    model: ModelInfo
    predictions: tuple[Prediction, ...]
    confident: bool | None  # whether the image looks like one of the model's classes; None: no threshold
    image: ImageInfo
    timings_ms: Mapping[str, float]  # decode, queue, inference

    @property
    def label(self) -> str:
        """The best label."""
        return self.predictions[0].label

    @property
    def probability(self) -> float:
        """The probability of the best label."""
        return self.predictions[0].probability


@dataclass(frozen=True, slots=True, eq=False)
class HeatMap:
    """One label, and what speaks for it at each place: `map` (h, w) float32, and the same as an RGBA PNG."""

    label: str
    index: int
    probability: float
    map: NDArray[np.float32]
    png: bytes


@dataclass(frozen=True, slots=True)
class Explanation:
    """The heat maps of the best labels, best first; `crop` is the part of the image below them, in its pixels."""

    model: ModelInfo
    predictions: tuple[HeatMap, ...]
    confident: bool | None
    crop: tuple[float, float, float, float]  # left, top, right, bottom
    image: ImageInfo
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The network's pooled features: `values` (d,) float32."""

    model: ModelInfo
    values: NDArray[np.float32]
    normalized: bool  # of length 1
    image: ImageInfo
    timings_ms: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A version of a model on a server."""

    name: str
    version: str
    state: str  # LOADING, READY or UNAVAILABLE
    reason: str  # why it does not serve; else empty
    is_default: bool
    labels: tuple[str, ...]  # empty for a model that does not serve or has no card


def classification_of(document: Mapping[str, Any], model: ModelInfo | None = None) -> Classification:
    """Return the classification in the JSON of /classify, or in an entry of a batch, whose `model` is given."""
    return Classification(
        ModelInfo(**document["model"]) if model is None else model,
        tuple(Prediction(**best) for best in document["predictions"]),
        document["confident"],
        ImageInfo(**document["image"]),
        document["timings_ms"],
    )


def explanation_of(document: Mapping[str, Any]) -> Explanation:
    """Return the explanation in the JSON of /explain."""
    left, top, right, bottom = document["crop"]
    return Explanation(
        ModelInfo(**document["model"]),
        tuple(_heat_map_of(best) for best in document["predictions"]),
        document["confident"],
        (left, top, right, bottom),
        ImageInfo(**document["image"]),
        document["timings_ms"],
    )


def _heat_map_of(document: Mapping[str, Any]) -> HeatMap:
    return HeatMap(
        document["label"],
        document["index"],
        document["probability"],
        np.array(document["map"], np.float32),
        base64.b64decode(document["png"].removeprefix(_DATA_URL)),
    )


def embedding_of(document: Mapping[str, Any]) -> Embedding:
    """Return the embedding in the JSON of /embed."""
    return Embedding(
        ModelInfo(**document["model"]),
        np.array(document["embedding"], np.float32),
        document["normalized"],
        ImageInfo(**document["image"]),
        document["timings_ms"],
    )


def served_model_of(document: Mapping[str, Any]) -> ServedModel:
    """Return the model in an entry of the JSON of /models."""
    return ServedModel(
        document["name"],
        document["version"],
        document["state"],
        document["reason"],
        document["default"],
        tuple(document.get("labels", ())),
    )
