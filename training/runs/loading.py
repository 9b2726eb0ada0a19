"""A trained network, put together again from the folder of its run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.weights.checkpoint import CheckpointError, find_weights, read_weights
from training.data.dataset import DEFAULT_MAX_SKIPPED
from training.networks.resnet import ResNet, build, load_weights

RUN_FILE = "run.json"
_LEVELS_TO_RUN = 4  # <run>/checkpoints/<step>/weights.safetensors


@dataclass(frozen=True, slots=True)
class Trained:
    """A network in evaluation mode, where its weights are, and what its run says of the images it takes."""

    network: ResNet
    run: Path
    weights: Path
    labels: tuple[str, ...]
    trained_on: Path  # the data as the run was told of it
    held_out: tuple[int, ...]  # the places of those of its images that were not trained on
    shorter_side: int
    crop: tuple[int, int]
    interpolation: str
    mean: list[float]
    standard_deviation: list[float]
    max_skipped: float  # share of undecodable files that the recipe accepts

    def was_trained_on(self, data: Path) -> bool:
        """Whether the run was told of this file or folder: from here, or from any folder that the run lies in."""
        starts = (Path.cwd(), *self.run.resolve().parents)
        return any((start / self.trained_on).resolve() == data.resolve() for start in starts)


def run_around(path: Path) -> Path:
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


def is_of_a_run(path: Path) -> bool:
    """Whether a folder or a file is a run, or lies in one where checkpoints do."""
    try:
        run_around(path)
    except CheckpointError:
        return False
    return True


def read_trained(path: Path) -> Trained:
    """Return the network of a run folder, a checkpoint folder or a weights file inside a run.

    Raises CheckpointError, also if the run's facts are missing or damaged.
    """
    run = run_around(path)
    weights = find_weights(path)
    try:
        trained = _from_facts(json.loads((run / RUN_FILE).read_bytes()), run, weights)
    except OSError as error:
        raise CheckpointError(f"cannot read {run / RUN_FILE}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError):
        raise CheckpointError(
            f"{run / RUN_FILE} is not what train-resnet run writes; give another --checkpoint"
        ) from None
    try:
        load_weights(trained.network, read_weights(weights))
    except ValueError as error:
        raise CheckpointError(f"{weights}: {error}; give another --checkpoint") from None
    return trained


def _from_facts(facts: dict[str, Any], run: Path, weights: Path) -> Trained:
    labels, preprocessing = tuple(facts["labels"]), facts["preprocessing"]
    height, width = preprocessing["crop"]
    network = build(
        facts["network"],
        num_classes=len(labels),
        shortcut=facts["shortcut"],
        stride_in=facts["stride_in"],
        stem=facts.get("stem"),
    )
    return Trained(
        network=network.eval(),
        run=run,
        weights=weights,
        labels=labels,
        trained_on=Path(facts["dataset"]["source"]),
        held_out=tuple(facts.get("held_out", ())),
        shorter_side=preprocessing["shorter_side"],
        crop=(height, width),
        interpolation=preprocessing["interpolation"],
        mean=preprocessing["mean"],
        standard_deviation=preprocessing["standard_deviation"],
        max_skipped=facts.get("recipe", {}).get("max_skipped", DEFAULT_MAX_SKIPPED),
    )
