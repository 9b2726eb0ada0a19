"""The options of the command line as types, separate so that `--help` needs no slow import."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Precision(StrEnum):
    """The precision of a network's computation."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"


class Target(StrEnum):
    """The processor that runs an int8 file."""

    X86 = "x86"
    ARM = "arm"
    TENSORRT = "tensorrt"


class Provider(StrEnum):
    """The provider that runs a file, with the names of the service."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"
    AUTO = "auto"


class Format(StrEnum):
    """The output format: a table for people, JSON for programs."""

    TABLE = "table"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class PrecisionOptions:
    """The precision of a file, and the options of its accuracy check."""

    precision: Precision = Precision.FP32
    target: Target = Target.X86  # int8 only
    calibration: Path | None = None  # int8 only
    max_loss: float = 0.5  # points of top-1
    unknown: Path | None = None  # images of none of the classes
