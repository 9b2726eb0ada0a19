"""The setup of a run before its first step: data, network, training state, and the facts of run.json."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from training.data.channel_statistics import Statistics
from training.data.crops import CropSpec
from training.data.normalization import Normalize
from training.data.training_set import Packed, TrainingImages
from training.hardware.devices import Hardware
from training.hardware.process_group import World
from training.recipes.recipe import Recipe
from training.runs.best_weights import Selection, selection_of, without_choice
from training.runs.data_reader import Reader
from training.runs.network import new_network, pixel_mean
from training.runs.options import Options, RunError
from training.runs.progress import Progress
from training.runs.provenance import git_commit, now, versions
from training.runs.run_data import RunData, check_data, read_data
from training.runs.time_budget import TimeBudget
from training.runs.warm_start import Start, starting_point
from training.trainer.interrupts import Stop
from training.trainer.loop import Training


@dataclass(slots=True)
class Run:
    """One run in progress."""

    options: Options
    progress: Progress
    data: RunData
    training: Training
    selection: Selection | None  # of the best weights; None: the last ones are final
    facts: dict[str, Any]  # the content of run.json
    reader: Reader
    budget: TimeBudget | None = None


def prepare(
    recipe: Recipe,
    options: Options,
    hardware: Hardware,
    world: World,
    progress: Progress,
    earlier: dict[str, Any] | None,
    stop: Stop,
) -> Run:
    """Load the data, build the network and collect the facts; `earlier` is run.json of a run that is resumed.

    Raises RunError, DataError, or CheckpointError for weights that cannot be read.
    """
    hardware = _hardware_for(recipe, hardware)
    start = _start(recipe, options, earlier, progress)
    recipe = start.recipe if start else recipe
    reader = _reader(recipe, options, world, progress)
    data = read_data(recipe, options, reader, earlier)
    if not len(data.held_out_part.labels):
        recipe = _without_choice(recipe, options.fixed, int(np.bincount(data.train_set.labels).max()), progress)
    statistics = data.statistics(reader.tested.size, options.seed)
    preprocessing = earlier["preprocessing"] if earlier else _preprocessing(reader.tested, statistics, start)
    normalize = Normalize(preprocessing["mean"], preprocessing["standard_deviation"], hardware.device)
    torch.manual_seed(options.seed)
    model = new_network(recipe, len(data.train_set.classes))
    if start:
        start.put_into(model, data.train_set.classes, progress.log)
    elif recipe.subtract == "pixel_mean":
        model.pixel_mean = pixel_mean(recipe, reader.tested, statistics, normalize)
    images = TrainingImages(
        labels=torch.from_numpy(data.training_part.labels).to(hardware.device),
        pixels=reader.pixels(data.train_set, data.kept, hardware.device, options.seed),
        normalize=normalize,
        recipe=recipe,
        pixel_mean=None if model.pixel_mean is None else model.pixel_mean.to(hardware.device),
    )
    model, steps = model.to(hardware.device), recipe.total_steps(len(data.kept))
    training = Training(recipe, options.seed, steps, hardware, model, images, world=world, stop=stop)
    facts = _facts(options, data, training, start)
    facts |= {"preprocessing": preprocessing, "statistics_of": statistics.images}
    facts |= check_data(data, options, recipe, progress.log)
    return Run(options, progress, data, training, selection_of(recipe), facts, reader)


def _hardware_for(recipe: Recipe, hardware: Hardware) -> Hardware:
    """Return the hardware without CUDA graphs for SyncBN, whose messages between processes cannot be recorded."""
    if not recipe.sync_bn:
        return hardware
    if hardware.device == "cpu":
        raise RunError("sync_bn needs GPUs, one for each process of torchrun; leave it out to train on CPUs")
    return dataclasses.replace(hardware, recorded=False)


def _start(recipe: Recipe, options: Options, earlier: dict[str, Any] | None, progress: Progress) -> Start | None:
    try:
        return starting_point(recipe, options.fixed, earlier, progress.log)
    except ValueError as error:
        raise RunError(str(error)) from None


def _without_choice(recipe: Recipe, fixed: frozenset[str], most_of_a_class: int, progress: Progress) -> Recipe:
    """Return the recipe for a run without held-out images. Raises RunError if the user requires them."""
    try:
        last = without_choice(recipe, fixed, most_of_a_class)
    except ValueError as error:
        raise RunError(str(error)) from None
    if last != recipe:
        progress.log("no class has a second image that could be held out: the last weights are kept, not the best")
    return last


def _facts(options: Options, data: RunData, training: Training, start: Start | None) -> dict[str, Any]:
    described = training.model.architecture
    is_packed = isinstance(training.images.pixels, Packed)
    return {
        "name": options.out.resolve().name,
        "command": options.command,
        "network": described.network,
        "depth": described.depth,
        "shortcut": described.shortcut,
        "stride_in": described.stride_in,
        "stem": described.stem,
        "num_classes": training.model.num_classes,
        "recipe": json.loads(json.dumps(dataclasses.asdict(training.recipe))),
        "steps": training.total_steps,
        "seed": options.seed,
        **data.facts(),
        "start": start.facts if start else None,
        "training_pixels": "packed" if is_packed else "streamed",
        "resizer": options.resizer,
        "hardware": training.hardware.facts() | {"processes": training.world.size},
        "versions": versions(),
        "git_commit": git_commit(),
        "started": now(),
    }


def _reader(recipe: Recipe, options: Options, world: World, progress: Progress) -> Reader:
    allowed = recipe.max_skipped if options.max_skipped is None else options.max_skipped
    try:
        return Reader(recipe, world, progress, allowed, options.reading, options.decoders, options.resizer)
    except ValueError as error:
        raise RunError(str(error)) from None


def _preprocessing(tested: CropSpec, statistics: Statistics, start: Start | None) -> dict[str, Any]:
    """Return the preprocessing of the network's input, in the model card's terms.

    The channel statistics are those of the initial weights, or else those of the images.
    """
    colours = start or statistics
    return {
        "shorter_side": tested.shorter_side,
        "crop": [tested.size, tested.size],
        "interpolation": tested.interpolation,
        "mean": colours.mean,
        "standard_deviation": colours.standard_deviation,
    }
