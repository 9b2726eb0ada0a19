"""The trained networks of this project: runs in training/results/.

A checkout has all of them; an installed wheel has only the small CIFAR-10 network.
"""

from dataclasses import dataclass
from pathlib import Path

from training.networks.resnet import Architecture
from training.runs.record import RecordError, read_record
from training.weights.checkpoint import WEIGHTS

RESULTS = Path(__file__).parents[1] / "results"
SMALL = "cifar10-resnet20"  # in every installation
DEFAULT = "everyday-resnet18"  # the run of the default model
EVERYDAY = "everyday-"  # the prefix of names of runs on photos of everyday things


@dataclass(frozen=True, slots=True)
class ShippedRun:
    """A run with its weights, and the facts of its record."""

    path: Path
    network: Architecture
    classes: int
    side: int  # pixels of the square that the network sees
    top1_error: float | None  # percent, of the test set or else of the held-out images, as the run recorded it
    measured_on: str

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def is_everyday(self) -> bool:
        return self.name.startswith(EVERYDAY)

    def __str__(self) -> str:
        stem = "" if self.network.stem in (None, "7x7") else f" with the stem {self.network.stem}"
        accuracy = "accuracy not recorded"
        if self.top1_error is not None:
            accuracy = f"{100 - self.top1_error:.2f}% accuracy on its {self.measured_on} images, as the run recorded"
        size = f"{self.side} x {self.side} pixels"
        return f"{self.network.network}{stem} at {size}, {self.classes} classes, {accuracy}"


def shipped_runs() -> list[ShippedRun]:
    """Return the runs that have weights, first those of everyday things, then by name."""
    folders = sorted(path.parent for path in RESULTS.glob(f"*/{WEIGHTS}"))
    runs = [run for run in map(_read, folders) if run is not None]
    return sorted(runs, key=lambda run: not run.is_everyday)


def is_shipped(run: Path) -> bool:
    """Return whether the folder of a run is one of this project's."""
    return run.resolve().parent == RESULTS.resolve()


def is_checkout() -> bool:
    """Return whether this code is in a checkout of the project, which has all runs."""
    return (RESULTS.parents[1] / "pyproject.toml").is_file()


def shown(path: Path) -> Path:
    """Return a path relative to the current folder, as a user types it."""
    resolved = path.resolve()
    return resolved.relative_to(Path.cwd()) if resolved.is_relative_to(Path.cwd()) else path


def _read(folder: Path) -> ShippedRun | None:
    try:
        record = read_record(folder)
    except RecordError:
        return None
    results = record.results
    errors = results and (results.test or results.held_out)
    return ShippedRun(
        path=folder,
        network=record.architecture,
        classes=len(record.labels),
        side=record.preprocessing.crop[0],
        top1_error=errors.top1 if errors else None,
        measured_on="test" if results and results.test else "held-out",
    )
