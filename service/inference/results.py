"""The results of inference: the identity of a model, and the labels, outputs and timings of one image."""

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from service.images.preprocessing import ImageInfo


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The identity of a model: its name, version and digest, and the provider and precision that it runs with."""

    name: str
    version: str
    sha256: str
    provider: str
    precision: str

    @property
    def served_as(self) -> str:
        """`name:version`, as in requests."""
        return f"{self.name}:{self.version}"


# The dataclasses of each image are not frozen: a frozen instance takes three times as long to create.


@dataclass(slots=True)
class Prediction:
    """One label with its probability."""

    label: str
    index: int
    probability: float  # rounded to six digits


@dataclass(slots=True)
class Classification:
    """The result of one image: the best labels, best first, properties of the image, and timings in seconds."""

    predictions: list[Prediction]
    image: ImageInfo
    decode_s: float
    queue_s: float
    inference_s: float
    batch_size: int
    outputs: dict[str, NDArray[Any]] = field(default_factory=dict)  # this image's rows of the requested outputs
    confident: bool | None = None  # whether its score reaches the card's threshold; None: the card has none
    batch_started_at: float = 0.0  # monotonic seconds; the images of a batch have it in common
