"""What a run needs before its first step: pictures, the held-out share, a fresh network, and the facts of run.json."""

import dataclasses
import datetime
import json
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.data import DEFAULT_MAX_SKIPPED, Dataset, stratified_hold_out
from training.data import load as load_dataset
from training.distributed import World
from training.hardware import Hardware
from training.loop import Training
from training.normalise import Normalise
from training.pictures import Packed, Pictures
from training.progress import Progress
from training.recipe import Recipe
from training.resnet import build


class RunError(Exception):
    """A run cannot start or go on. The message is one line that names the next step."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says beside the recipe."""

    out: Path
    data: Path
    test_data: Path | None = None
    seed: int = 0
    resume: bool = False
    time_budget_minutes: float | None = None
    checkpoint_every_minutes: float = 5.0
    max_skipped: float = DEFAULT_MAX_SKIPPED


@dataclass(slots=True)
class Run:
    """One run under way."""

    options: Options
    progress: Progress
    train_set: Dataset
    test_set: Dataset | None
    held_out: NDArray[np.int64]  # indices into the training set
    training: Training
    facts: dict[str, Any]  # what run.json says


def prepare(
    recipe: Recipe,
    options: Options,
    hardware: Hardware,
    world: World,
    progress: Progress,
    earlier: dict[str, Any] | None,
) -> Run:
    """Load the data, build the network, and write down the facts; an earlier run's statistics are kept.

    Raises RunError, DataError, or ValueError for a recipe that does not fit.
    """
    train_set = load_dataset(options.data, recipe.image_size, max_skipped=options.max_skipped, announce=progress.say)
    test_set = _load_test_set(recipe, options, train_set, progress)
    count = min(recipe.held_out_images, len(train_set) // 10)
    held_out = stratified_hold_out(train_set.labels, count, options.seed)
    kept = np.setdiff1d(np.arange(len(train_set)), held_out)
    images = torch.from_numpy(np.array(train_set.images[kept]))
    preprocessing = earlier["preprocessing"] if earlier else _preprocessing(recipe, images)
    normalise = Normalise(preprocessing["mean"], preprocessing["standard_deviation"], hardware.device)
    torch.manual_seed(options.seed)
    model = build(
        recipe.network, num_classes=len(train_set.classes), shortcut=recipe.shortcut, stride_in=recipe.stride_in
    )
    if recipe.subtract == "pixel_mean":
        model.pixel_mean = normalise(images.float().mean(0)).permute(2, 0, 1).contiguous()
    training = Training(
        recipe=recipe,
        seed=options.seed,
        total_steps=recipe.total_steps(len(kept)),
        hardware=hardware,
        model=model.to(hardware.device),
        pictures=Pictures(
            labels=torch.from_numpy(train_set.labels[kept]).to(hardware.device),
            pixels=Packed(images.to(hardware.device)),
            normalise=normalise,
            recipe=recipe,
        ),
        world=world,
    )
    facts = _facts(training, train_set, test_set, options)
    facts |= {"preprocessing": preprocessing, "started": now(), "held_out": held_out.tolist()}
    return Run(options, progress, train_set, test_set, held_out, training, facts)


def _facts(training: Training, train_set: Dataset, test_set: Dataset | None, options: Options) -> dict[str, Any]:
    described = training.model.architecture
    return {
        "name": options.out.resolve().name,
        "network": described.network,
        "depth": described.depth,
        "shortcut": described.shortcut,
        "stride_in": described.stride_in,
        "num_classes": training.model.num_classes,
        "labels": list(train_set.classes),
        "recipe": json.loads(json.dumps(dataclasses.asdict(training.recipe))),
        "steps": training.total_steps,
        "seed": options.seed,
        "dataset": train_set.facts(),
        "test_dataset": test_set.facts() if test_set else None,
        "hardware": training.hardware.facts() | {"processes": training.world.size},
        "versions": _versions(),
        "git_commit": _git_commit(),
    }


def _preprocessing(recipe: Recipe, images: Tensor) -> dict[str, Any]:
    """Return how pictures become the network's input, in the model card's terms; the statistics are of `images`."""
    parts = [part.double().div(255).reshape(-1, 3) for part in torch.split(images, 1000)]
    pixels = sum(len(part) for part in parts)
    mean = sum(part.sum(0) for part in parts) / pixels
    variance = sum((part - mean).square().sum(0) for part in parts) / pixels
    return {
        "shorter_side": recipe.image_size,
        "crop": [recipe.image_size, recipe.image_size],
        "interpolation": "bilinear",
        "mean": [round(value, 6) for value in torch.as_tensor(mean).tolist()],
        "standard_deviation": [max(round(value, 6), 1e-3) for value in torch.as_tensor(variance).sqrt().tolist()],
    }


def _load_test_set(recipe: Recipe, options: Options, train_set: Dataset, progress: Progress) -> Dataset | None:
    if options.test_data is None:
        return None
    test_set = load_dataset(
        options.test_data, recipe.image_size, max_skipped=options.max_skipped, announce=progress.say
    )
    if test_set.classes != train_set.classes:
        different = sorted(set(test_set.classes) ^ set(train_set.classes))
        raise RunError(
            f"training and test data do not have the same classes; only in one of them: {', '.join(different)}"
        )
    return test_set


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


def _git_commit() -> str | None:
    """Return the commit of this code, or None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None


def now() -> str:
    """Return the time in ISO 8601, UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
