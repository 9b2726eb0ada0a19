"""The model card: the description in a model file, and the only source of labels, preprocessing and provenance.

It is one JSON document under the key `model_card` of the ONNX file's metadata, written by `export` and read by
`service`. Anyone can read it: `json.loads(onnx.load(file).metadata_props[...].value)`, or through
`onnxruntime.InferenceSession(file).get_modelmeta().custom_metadata_map["model_card"]`.
"""

import hashlib
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from service.model_files.confidence import Score

METADATA_KEY = "model_card"
GOLDEN_TOLERANCE = {"fp32": 1e-4, "fp16": 5e-3, "bf16": 5e-2, "int8": 5e-2}  # largest difference in probability

# pydantic's types of errors → a more precise message than that the value is invalid.
_FLAWS = {
    "missing": "it is missing",
    "extra_forbidden": "this version does not know the field",
    "json_invalid": "it is not JSON",
}

Precision = Literal["fp32", "fp16", "int8"]
Positive = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0)]
# Fields that were added later: older services refuse a card that has them.
_LEFT_OUT_IF_NONE = Field(exclude_if=lambda value: value is None)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Variant(_Part):
    """The form of the network among those of the paper."""

    shortcut: Literal["A", "B", "C"] | None  # None: a plain network
    stride_in: Literal["1x1", "3x3"] | None  # bottlenecks only: v1 strides in the first 1x1, v1.5 in the 3x3
    stem: Annotated[Literal["3x3", "3x3-pool"] | None, _LEFT_OUT_IF_NONE] = None  # None: the paper's


class Preprocessing(_Part):
    """The steps from an upright RGB image to the `images` input. The graph itself scales and normalizes."""

    shorter_side: Positive  # pixels, after the resize
    crop: tuple[Positive, Positive]  # height, width of the centre crop
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"]
    antialias: Literal[True] = True
    mean: tuple[float, float, float]  # of pixels in 0..1; applied inside the graph
    standard_deviation: tuple[float, float, float]
    # The resizer of all measurements; None: not recorded, Pillow.
    resizer: Annotated[Literal["pillow", "cykooz-resizer"] | None, _LEFT_OUT_IF_NONE] = None

    @model_validator(mode="after")
    def _crop_fits(self) -> "Preprocessing":
        if max(self.crop) > self.shorter_side:
            raise ValueError(f"a crop of {self.crop} does not fit a shorter side of {self.shorter_side}")
        return self


class Accuracy(_Part):
    """The accuracy of this file, measured through ONNX Runtime."""

    top1: Probability
    top5: Probability
    images: Positive
    dataset: str
    provider: str


class Calibration(_Part):
    """The temperature in the graph's softmax, chosen on held-out images, and the remaining calibration error."""

    temperature: Annotated[float, Field(gt=0)]
    expected_calibration_error: Probability
    images: Positive


class Confidence(_Part):
    """The rule for a confident answer: its score reaches the threshold that 95% of known held-out images reach.

    `auroc` is the probability that an image of the model's classes has a higher score than an image of none of them,
    with a 95% interval. It is None without unknown images.
    """

    score: Score
    threshold: Annotated[float, Field(allow_inf_nan=False)]
    known_images: Positive  # held out of training; the threshold is from them
    auroc: Probability | None = None
    auroc_interval: tuple[Probability, Probability] | None = None
    compared_known_images: Positive | None = None
    compared_unknown_images: Positive | None = None
    unknown: str | None = None  # data set of the unknown images


class Parity(_Part):
    """The difference between the file's outputs and those of the network in PyTorch."""

    largest_probability_difference: Annotated[float, Field(ge=0)]
    images: Positive
    agreeing_images: Annotated[int, Field(ge=0)]
    batch_sizes: tuple[Positive, ...]


class PublishedWeights(_Part):
    """Weights that others trained, and the claims of their publisher, which were not measured here."""

    name: str  # torchvision-v2
    url: str
    licence: str  # SPDX
    top1: Probability
    top5: Probability
    dataset: str
    said_by: str


class PrecisionLoss(_Part):
    """The loss by fp16 or int8: this file compared with the same network in fp32, both through ONNX Runtime."""

    agreement: Probability  # share of images that keep the best label of fp32
    top1_loss: float | None  # points of top-1 that fp32 is better; None where the images have no labels
    images: Positive
    dataset: str
    provider: str


class Quantisation(_Part):
    """The images and the method that determined the ranges of int8, and the layers that stayed in float."""

    target: Literal["x86", "arm", "tensorrt"]
    method: Literal["entropy", "percentile", "min-max"]
    images: Positive  # that determined the ranges
    choosing_images: Positive | None = None  # by which the method was chosen; None: a file of an earlier version
    divergence: NotNegative | None = None  # mean Kullback-Leibler divergence from fp32 on them, nats
    float_layers: tuple[str, ...]


class Provenance(_Part):
    """The origin of the weights, and the program that made the file."""

    checkpoint_sha256: str | None  # None: random weights
    recipe: str | None
    seed: int | None
    git_commit: str | None
    created: str  # ISO 8601, UTC
    versions: dict[str, str]


class Golden(_Part):
    """An example that each load repeats: the expected results for the golden input."""

    probabilities: tuple[Probability, ...]


class Recommended(_Part):
    """Settings for serving the file on a GPU: the batch sizes to warm up, and options with ONNX Runtime's names."""

    precision: Precision
    batch_sizes: tuple[Positive, ...]
    cuda: dict[str, str]
    tensorrt: dict[str, str]  # with the range of shapes of its profile


class ModelCard(_Part):
    """All facts about a model file that a server or a reader needs."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: Literal[1] = 1
    network: str  # resnet20, resnet50, plain34
    depth: Positive
    variant: Variant
    labels: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=2)
    synsets: tuple[str, ...] | None = None  # of ImageNet's labels in WordNet 3.0
    preprocessing: Preprocessing
    dataset: str | None
    precision: Precision
    accuracy: Accuracy | None
    calibration: Calibration | None
    confidence: Annotated[Confidence | None, _LEFT_OUT_IF_NONE] = None  # None: no threshold was measured
    parity: Parity
    precision_loss: PrecisionLoss | None = None  # None for fp32
    quantisation: Quantisation | None = None  # None but for int8
    provenance: Provenance
    published: PublishedWeights | None = None  # None: trained by this project
    golden: Golden
    recommended: Recommended | None = None  # absent in older files

    @model_validator(mode="after")
    def _synsets_cover_labels(self) -> "ModelCard":
        if self.synsets is not None and len(self.synsets) != len(self.labels):
            raise ValueError(f"{len(self.synsets)} synsets for {len(self.labels)} labels")
        return self

    @model_validator(mode="after")
    def _golden_covers_labels(self) -> "ModelCard":
        if len(self.golden.probabilities) != len(self.labels):
            raise ValueError(f"{len(self.golden.probabilities)} golden probabilities for {len(self.labels)} labels")
        return self


class BadCard(Exception):
    """The card is missing or invalid. The message is one line for an operator."""


def read_card(metadata: dict[str, str]) -> ModelCard:
    """Read the card from an ONNX file's metadata. Raises BadCard."""
    if METADATA_KEY not in metadata:
        raise BadCard("the file has no model card; export it with export-onnx")
    try:
        return ModelCard.model_validate_json(metadata[METADATA_KEY])
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise BadCard(f"the model card is not valid at {where}: {_what_is_wrong(first)}") from None


def _what_is_wrong(error: ErrorDetails) -> str:
    if error["type"] == "value_error":  # of the checks above
        return str(error["ctx"]["error"])
    return _FLAWS.get(error["type"], "this version does not understand the value; export the model again")


def golden_input(height: int, width: int) -> NDArray[np.uint8]:
    """Return the golden image, uint8 (1, height, width, 3): the first bytes of SHAKE-256 of the word golden."""
    stream = hashlib.shake_256(b"golden").digest(height * width * 3)
    return np.frombuffer(stream, dtype=np.uint8).reshape(1, height, width, 3)
