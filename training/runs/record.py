"""run.json, read only here for training, export and reports, and the files of a run folder that others read.

A folder may come from an older version of this code, from another person, or from a run that was killed while it wrote.
Reading therefore returns a complete record, or fails with the place of the first fault. Fields that older versions did
not write have defaults.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, PositiveInt, ValidationError

from service.images.preprocessing import PILLOW, Resizer
from service.model_files.card import Preprocessing
from training.data.dataset import DEFAULT_MAX_SKIPPED
from training.networks.resnet import Architecture, architecture
from training.weights.checkpoint import CheckpointError

RUN_FILE, METRICS_FILE = "run.json", "metrics.jsonl"
_LEVELS_TO_RUN = 4  # <run>/checkpoints/<step>/weights.safetensors
_NEEDED_TO_RESUME = ("held_out", "hardware", "versions")


class RecordError(Exception):
    """run.json cannot be used. The message is one line without a next step, which depends on the command."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason  # the same without the folder


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class DatasetRecord(_Part):
    """A data set as the run read it."""

    name: str
    source: Path
    fingerprint: str  # see `training.data.dataset.Dataset`
    images: PositiveInt


class ErrorsRecord(_Part):
    """Top-1 error in percent, and the number of images."""

    top1: FiniteFloat
    images: int


class ResultsRecord(_Part):
    """The errors of a run's final weights, without augmentation."""

    train: ErrorsRecord | None = None
    held_out: ErrorsRecord | None = None
    test: ErrorsRecord | None = None


class RunRecord(_Part):
    """The content of run.json: recipe, images and results."""

    network: str
    shortcut: str | None
    stride_in: str | None = None
    stem: str | None = None
    labels: tuple[str, ...] = Field(min_length=2)
    preprocessing: Preprocessing
    recipe: dict[str, Any]  # as JSON; an older version's may not be a valid `Recipe`
    steps: PositiveInt
    seed: int
    dataset: DatasetRecord
    validation_dataset: DatasetRecord | None = None  # held-out images that have a folder of their own
    test_dataset: DatasetRecord | None = None
    held_out: tuple[int, ...] = ()  # indices into `dataset`
    resizer: Resizer = PILLOW  # the only one before runs recorded it
    hardware: dict[str, Any] = {}
    git_commit: str | None = None
    started: str | None = None  # ISO 8601, UTC
    finished: str | None = None  # ISO 8601, UTC; None during the run
    results: ResultsRecord | None = None
    gradient_norms: dict[int, dict[str, FiniteFloat]] = {}  # by step and layer
    layer_responses: dict[str, FiniteFloat] = {}  # standard deviations, by layer

    @property
    def architecture(self) -> Architecture:
        return architecture(self.network, self.shortcut, self.stride_in, self.stem)

    @property
    def recipe_name(self) -> str:
        return str(self.recipe["name"])

    @property
    def max_skipped(self) -> float:
        """The share of undecodable files that the recipe accepts."""
        return float(self.recipe.get("max_skipped", DEFAULT_MAX_SKIPPED))


def read_record(run: Path) -> RunRecord:
    """Return the record in a run folder. Raises RecordError for a missing, unreadable or damaged one."""
    return _parse(run / RUN_FILE, _content(run / RUN_FILE))


def read_facts(run: Path) -> dict[str, Any]:
    """Return a record as the JSON object in the file, for a resumed run. Raises RecordError."""
    file = run / RUN_FILE
    content = _content(file)
    _parse(file, content)
    facts: dict[str, Any] = json.loads(content)
    for name in _NEEDED_TO_RESUME:
        if name not in facts:
            raise _unusable(file, name)
    return facts


def run_folder_of(path: Path) -> Path:
    """Return the run folder that a run folder, a checkpoint or a weights file belongs to. Raises CheckpointError."""
    if not path.exists():
        raise CheckpointError(f"there is no {path}; give --checkpoint a folder made by train-resnet run")
    folders = [path, *path.absolute().parents][:_LEVELS_TO_RUN]
    run = next((folder for folder in folders if (folder / RUN_FILE).is_file()), None)
    if run is None:
        raise CheckpointError(
            f"{path} belongs to no run: no {RUN_FILE} in it or above it; give --checkpoint a folder made by "
            "train-resnet run"
        )
    return run


def belongs_to_run(path: Path) -> bool:
    """Return whether a path is a run, or is inside a run where checkpoints are."""
    try:
        run_folder_of(path)
    except CheckpointError:
        return False
    return True


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise RecordError(f"there is no {file}", f"there is no {file.name}") from None
    except OSError as error:
        reason = f"cannot be read: {error.strerror}"
        raise RecordError(f"{file} {reason}", f"{file.name} {reason}") from None


def _parse(file: Path, content: bytes) -> RunRecord:
    try:
        record = RunRecord.model_validate_json(content)
    except ValidationError as error:
        raise _unusable(file, first_fault(error)) from None
    try:
        _ = record.architecture
    except ValueError as error:
        raise RecordError(f"{file}: {error}", str(error)) from None
    if not isinstance(record.recipe.get("name"), str):
        raise _unusable(file, "recipe.name")
    return record


def _unusable(file: Path, place: str) -> RecordError:
    return RecordError(f"{file} is not what train-resnet run writes, at {place}", f"{file.name} has no usable {place}")


def first_fault(error: ValidationError) -> str:
    """Return the place of the first fault, such as results.train.top1."""
    return ".".join(map(str, error.errors()[0]["loc"])) or "content"
