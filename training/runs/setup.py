"""What a run needs before its first step: images, the held-out share, a fresh network, and the facts of run.json."""

import dataclasses
import datetime
import json
import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from service.images.preprocessing import Resizer, usual_resizer
from training.data.channel_statistics import Statistics, measure, sample
from training.data.crops import Window
from training.data.dataset import Dataset, Reading, stratified_hold_out
from training.data.duplicates import duplicates_in
from training.data.normalization import Normalize
from training.data.splits import Part, balance, hold_out_share, whole
from training.data.training_set import Packed, TrainingImages
from training.hardware.devices import Hardware
from training.hardware.process_group import World
from training.networks.resnet import ResNet, build
from training.recipes.recipe import Recipe
from training.runs.best_weights import Selection, selection_of, without_choice
from training.runs.data_reader import Reader
from training.runs.progress import Progress
from training.runs.warm_start import Start, starting_point
from training.trainer.fine_tuning import freeze
from training.trainer.interrupts import Stop
from training.trainer.loop import Training


class RunError(Exception):
    """A run cannot start or go on. The message is one line that names the next step."""


class Interrupted(RunError):
    """The run was asked to stop and has saved what there was to save."""


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
    max_skipped: float | None = None  # None: what the recipe allows
    fixed: frozenset[str] = frozenset()  # fields of the recipe that the user has set, which weights do not change
    reading: Reading | None = None  # packed or streamed; None: what fits is packed
    decoders: int | None = None  # processes that decode what is streamed; None: one a core
    resizer: Resizer = field(default_factory=usual_resizer)


@dataclass(slots=True)
class Run:
    """One run under way."""

    options: Options
    progress: Progress
    train_set: Dataset
    validation_set: Dataset | None  # the held-out images, where they lie in a folder of their own
    test_set: Dataset | None
    held_out: NDArray[np.int64]  # indices into the training set; none where there is a validation set
    training: Training
    selection: Selection | None  # of the best weights; None: the last ones are handed on
    facts: dict[str, Any]  # what run.json says
    reader: Reader

    @property
    def kept(self) -> NDArray[np.int64]:
        """Return the indices of the training set that are trained on."""
        return np.setdiff1d(np.arange(len(self.train_set)), self.held_out)

    @property
    def held_out_part(self) -> Part:
        """Return the images that are not trained on."""
        if self.validation_set is not None:
            return whole("val", self.validation_set)
        return Part("val", self.train_set, self.held_out)

    @property
    def parts(self) -> list[Part]:
        """Return all images of the run, by what is done with them."""
        parts = [Part("train", self.train_set, self.kept), self.held_out_part]
        if self.test_set is not None:
            parts.append(whole("test", self.test_set))
        return parts


def prepare(
    recipe: Recipe,
    options: Options,
    hardware: Hardware,
    world: World,
    progress: Progress,
    earlier: dict[str, Any] | None,
    stop: Stop,
) -> Run:
    """Load the data, build the network, write the facts. Raises RunError, DataError, or ValueError for a misfit."""
    hardware = _hardware_for(recipe, hardware)
    start = _start(recipe, options, earlier, progress)
    recipe = start.recipe if start else recipe
    reader = _reader(recipe, options, world, progress)
    train_set, validation_set, test_set = reader.parts(options.data, options.test_data, earlier or {})
    held_out = _held_out(recipe, train_set, validation_set, options.seed)
    if validation_set is None and not len(held_out):
        recipe = _without_choice(recipe, options.fixed, int(np.bincount(train_set.labels).max()), progress)
    kept = np.setdiff1d(np.arange(len(train_set)), held_out)
    statistics = measure(train_set.chosen(sample(kept, reader.tested.size, options.seed)))
    preprocessing = earlier["preprocessing"] if earlier else _preprocessing(reader.tested, statistics, start)
    normalize = Normalize(preprocessing["mean"], preprocessing["standard_deviation"], hardware.device)
    torch.manual_seed(options.seed)
    model = _network(recipe, len(train_set.classes))
    if start:
        start.put_into(model, train_set.classes, progress.say)
    elif recipe.subtract == "pixel_mean":
        model.pixel_mean = _pixel_mean(recipe, reader.tested, statistics, normalize)
    images = TrainingImages(
        labels=torch.from_numpy(train_set.labels[kept]).to(hardware.device),
        pixels=reader.pixels(train_set, kept, hardware.device, options.seed),
        normalize=normalize,
        recipe=recipe,
    )
    steps = recipe.total_steps(len(kept))
    training = Training(
        recipe, options.seed, steps, hardware, model.to(hardware.device), images, world=world, stop=stop
    )
    selection = selection_of(recipe)
    this = Run(options, progress, train_set, validation_set, test_set, held_out, training, selection, {}, reader)
    this.facts = _facts(this, start) | {"preprocessing": preprocessing, "statistics_of": statistics.images}
    _report_duplicates(this)
    _report_balance(this)
    return this


def _hardware_for(recipe: Recipe, hardware: Hardware) -> Hardware:
    """Return how this recipe computes there: the messages of its SyncBN between processes are no part of a graph."""
    if not recipe.sync_bn:
        return hardware
    if hardware.device == "cpu":
        raise RunError("sync_bn needs GPUs, one for each process of torchrun; leave it out to train on CPUs")
    return dataclasses.replace(hardware, recorded=False)


def _network(recipe: Recipe, classes: int) -> ResNet:
    """Return a fresh network whose frozen stages learn nothing."""
    model = build(
        recipe.network,
        num_classes=classes,
        shortcut=recipe.shortcut,
        stride_in=recipe.stride_in,
        stem=recipe.stem,
    )
    try:
        freeze(model, recipe.freeze)
    except ValueError as error:
        raise RunError(str(error)) from None
    if recipe.sync_bn:
        return cast(ResNet, nn.SyncBatchNorm.convert_sync_batchnorm(model))  # type: ignore[no-untyped-call]
    return model


def _start(recipe: Recipe, options: Options, earlier: dict[str, Any] | None, progress: Progress) -> Start | None:
    try:
        return starting_point(recipe, options.fixed, earlier, progress.say)
    except ValueError as error:
        raise RunError(str(error)) from None


def _held_out(recipe: Recipe, train_set: Dataset, validation_set: Dataset | None, seed: int) -> NDArray[np.int64]:
    """Return the indices of the training set that are not trained on."""
    if validation_set is not None:
        return np.empty(0, np.int64)
    if recipe.held_out_share:
        return hold_out_share(train_set.labels, recipe.held_out_share, seed)
    return stratified_hold_out(train_set.labels, min(recipe.held_out_images, len(train_set) // 10), seed)


def _without_choice(recipe: Recipe, fixed: frozenset[str], most_of_a_class: int, progress: Progress) -> Recipe:
    """Return the recipe as it is trained without held-out images. Raises RunError if the user wants them."""
    try:
        last = without_choice(recipe, fixed, most_of_a_class)
    except ValueError as error:
        raise RunError(str(error)) from None
    if last != recipe:
        progress.say("no class has a second image that could be held out: the last weights are kept, not the best")
    return last


def _report_duplicates(this: Run) -> None:
    duplicates = duplicates_in(this.parts, this.options.data)
    this.facts["duplicates"] = duplicates.facts()
    for line in duplicates.lines():
        this.progress.say(line)


def _report_balance(this: Run) -> None:
    held_out = this.held_out_part
    counted = balance(this.train_set.classes, this.train_set.labels[this.kept], held_out.labels)
    this.facts["balance"] = counted.facts()
    if this.training.recipe.weights is not None:
        for line in counted.lines(this.training.recipe.class_weights):
            this.progress.say(line)


def _facts(this: Run, start: Start | None) -> dict[str, Any]:
    training, train_set = this.training, this.train_set
    described = training.model.architecture
    is_packed = isinstance(training.images.pixels, Packed)
    return {
        "name": this.options.out.resolve().name,
        "network": described.network,
        "depth": described.depth,
        "shortcut": described.shortcut,
        "stride_in": described.stride_in,
        "stem": described.stem,
        "num_classes": training.model.num_classes,
        "labels": list(train_set.classes),
        "recipe": json.loads(json.dumps(dataclasses.asdict(training.recipe))),
        "steps": training.total_steps,
        "seed": this.options.seed,
        "dataset": train_set.facts(),
        "validation_dataset": this.validation_set.facts() if this.validation_set else None,
        "test_dataset": this.test_set.facts() if this.test_set else None,
        "held_out": this.held_out.tolist(),
        "start": start.facts if start else None,
        "training_pixels": "packed" if is_packed else "streamed",
        "resizer": this.options.resizer,
        "hardware": training.hardware.facts() | {"processes": training.world.size},
        "versions": _versions(),
        "git_commit": _git_commit(),
        "started": now(),
    }


def _reader(recipe: Recipe, options: Options, world: World, progress: Progress) -> Reader:
    allowed = recipe.max_skipped if options.max_skipped is None else options.max_skipped
    try:
        return Reader(recipe, world, progress, allowed, options.reading, options.decoders, options.resizer)
    except ValueError as error:
        raise RunError(str(error)) from None


def _preprocessing(tested: Window, statistics: Statistics, start: Start | None) -> dict[str, Any]:
    """Return how images become the network's input, in the model card's terms.

    The colours are those that the weights were trained with, or else those of the images.
    """
    colours = start or statistics
    return {
        "shorter_side": tested.shorter_side,
        "crop": [tested.size, tested.size],
        "interpolation": tested.interpolation,
        "mean": colours.mean,
        "standard_deviation": colours.standard_deviation,
    }


def _pixel_mean(recipe: Recipe, tested: Window, statistics: Statistics, normalize: Normalize) -> Tensor:
    if recipe.progressive_sizes:
        raise RunError("a mean image has one size: add --set subtract=channel_mean, or --set progressive_sizes=[]")
    if recipe.image_size != tested.size:
        raise RunError(
            f"a mean image of {tested.size} pixels cannot be subtracted from images of {recipe.image_size}; "
            "add --set subtract=channel_mean, or train and test at one size"
        )
    return normalize(torch.from_numpy(statistics.mean_image)).permute(2, 0, 1).contiguous()


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
