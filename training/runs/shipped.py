"""The trained networks that come with this project: runs beside this code, in training/results/.

A checkout has all of them; an installed wheel has the small CIFAR-10 network alone.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.weights.checkpoint import WEIGHTS
from training.networks.resnet import Architecture, architecture
from training.runs.loading import RUN_FILE

RESULTS = Path(__file__).parents[1] / "results"
SMALL = "cifar10-resnet20"  # in every installation
EVERYDAY = "everyday-"  # what names of runs on photos of everyday things begin with


@dataclass(frozen=True, slots=True)
class ShippedRun:
    """A run with its weights, and what it says of itself."""

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
            accuracy = f"{100 - self.top1_error:.2f}% of its {self.measured_on} images right, as the run recorded"
        size = f"{self.side} x {self.side} pixels"
        return f"{self.network.network}{stem} at {size}, {self.classes} classes, {accuracy}"


def shipped_runs() -> list[ShippedRun]:
    """Return the runs that have weights, those of everyday things first, then by name."""
    folders = sorted(path.parent for path in RESULTS.glob(f"*/{WEIGHTS}"))
    runs = [run for run in map(_read, folders) if run is not None]
    return sorted(runs, key=lambda run: not run.is_everyday)


def is_shipped(run: Path) -> bool:
    """Whether the folder of a run is one of those that come with this project."""
    return run.resolve().parent == RESULTS.resolve()


def is_checkout() -> bool:
    """Whether this code lies in a checkout of the project, which has all the runs."""
    return (RESULTS.parents[1] / "pyproject.toml").is_file()


def shown(path: Path) -> Path:
    """Return a path as it is typed from the current folder."""
    resolved = path.resolve()
    return resolved.relative_to(Path.cwd()) if resolved.is_relative_to(Path.cwd()) else path


def _read(folder: Path) -> ShippedRun | None:
    try:
        facts: dict[str, Any] = json.loads((folder / RUN_FILE).read_bytes())
        results = facts.get("results", {})
        part = next((part for part in ("test", "held_out") if part in results), None)
        return ShippedRun(
            path=folder,
            network=architecture(facts["network"], facts["shortcut"], facts["stride_in"], facts.get("stem")),
            classes=len(facts["labels"]),
            side=facts["preprocessing"]["crop"][0],
            top1_error=None if part is None else float(results[part]["top1"]),
            measured_on="test" if part == "test" else "held-out",
        )
    except (OSError, ValueError, LookupError, TypeError):
        return None
