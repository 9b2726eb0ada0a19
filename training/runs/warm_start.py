"""The initial weights of a run: published ones, a file, or another run.

The network, the image size and the channel statistics follow the weights, except for fields that the user has set. The
source is written to run.json and the weights to the first checkpoint, so that resuming needs neither the file nor its
publisher.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from training.networks.colour_statistics import usual_colour_statistics
from training.networks.resnet import Architecture, ResNet, architecture, load_weights
from training.recipes.recipe import Recipe
from training.runs.loading import read_trained
from training.runs.record import belongs_to_run
from training.runs.shipped import DEFAULT, SMALL, ShippedRun, shipped_runs
from training.weights.checkpoint import WEIGHTS, CheckpointError, sha256_of
from training.weights.conversion import fit_head, read_named, recognise, refuse_unfit
from training.weights.published import (
    PUBLISHED,
    PublishedError,
    fetch_published,
    find_published,
)

Log = Callable[[str], None]


def _architecture_of(recipe: Recipe) -> Architecture:
    return architecture(recipe.network, recipe.shortcut, recipe.stride_in, recipe.stem)


PUBLISHED_WEIGHTS = "published"  # the value of a recipe's `weights` that means published ones
_HUGGING_FACE_FILES = ("model.safetensors", "pytorch_model.bin")  # in a model's folder
_WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".th")
_USUAL_SHORTER_SIDE = 256  # pixels, for a crop of 224, as torchvision evaluates
_NETWORK_FIELDS = ("network", "shortcut", "stride_in", "stem")


@dataclass(frozen=True, slots=True)
class Source:
    """Weights under this project's names, their network, and the preprocessing that it was trained with."""

    path: Path
    weights: dict[str, Tensor] = field(repr=False)
    network: Architecture
    side: int  # pixels of its square input
    shorter_side: int  # pixels of the resized image before the crop
    mean: tuple[float, ...]
    standard_deviation: tuple[float, ...]
    labels: tuple[str, ...] | None = None  # of the head, if known
    instead_of: str | None = None  # the unavailable weights, and the reason


@dataclass(frozen=True, slots=True)
class Start:
    """A recipe that fits the weights, the channel statistics for normalization, and the weights."""

    recipe: Recipe
    mean: list[float]
    standard_deviation: list[float]
    facts: dict[str, Any]  # the entry of run.json
    source: Source | None = None  # None for a resumed run: its checkpoint has the weights

    def put_into(self, model: ResNet, labels: tuple[str, ...], log: Log) -> None:
        """Load the weights into the network; a head for other classes is skipped, which is logged."""
        side = self.recipe.test_size or self.recipe.image_size
        if self.facts["pixel_mean"]:
            model.pixel_mean = torch.zeros(3, side, side)
        if self.source is None:
            return
        weights, message = _without_another_head(self.source, labels)
        log(message)
        if "pixel_mean" in weights:
            mean = weights["pixel_mean"][None]
            weights["pixel_mean"] = F.interpolate(mean, (side, side), mode="bilinear", align_corners=False)[0]
        load_weights(model, model.state_dict() | weights)


def starting_point(recipe: Recipe, fixed: frozenset[str], earlier: dict[str, Any] | None, log: Log) -> Start | None:
    """Return the initial weights of a run, or None for random ones.

    `fixed` names the recipe's fields that the user has set, `earlier` is run.json of a resumed run. Raises
    CheckpointError for unreadable weights, ValueError for weights of another network.
    """
    if earlier is not None:
        return _as_before(recipe, earlier)
    if recipe.weights is None:
        return None
    if recipe.weights == PUBLISHED_WEIGHTS:
        source = _published_or_shipped(recipe, fixed, log)
    else:
        source = _read(Path(recipe.weights).expanduser(), recipe, log)
    return _start(source, recipe, fixed, log)


def _as_before(recipe: Recipe, earlier: dict[str, Any]) -> Start | None:
    facts = earlier.get("start")
    if facts is None:
        return None
    followed = {name: earlier["recipe"][name] for name in facts["followed"]}
    colours = earlier["preprocessing"]
    return Start(dataclasses.replace(recipe, **followed), colours["mean"], colours["standard_deviation"], facts)


def _start(source: Source, recipe: Recipe, fixed: frozenset[str], log: Log) -> Start:
    network = _network_of(source, recipe, fixed, log)
    fields = {name: getattr(network, name) for name in _NETWORK_FIELDS} | _sizes(source, recipe, fixed)
    fields |= {"weights": str(source.path), "subtract": "channel_mean"}  # a mean image comes with the weights
    head = source.weights.get("fc.weight")
    facts = {
        "weights": str(source.path),
        "sha256": sha256_of(source.path),
        "network": network.network,
        "classes": None if head is None else len(head),
        "pixel_mean": "pixel_mean" in source.weights,
        "followed": sorted(fields),
        "instead_of": source.instead_of,
    }
    new = dataclasses.replace(recipe, **fields)
    return Start(new, list(source.mean), list(source.standard_deviation), facts, source)


def _network_of(source: Source, recipe: Recipe, fixed: frozenset[str], log: Log) -> Architecture:
    """Return the network to train. Raises ValueError, with names and shapes, if the weights do not fit it."""
    requested = _architecture_of(recipe)
    chosen = source.network if _agree(source.network, requested, fixed) else requested
    try:
        refuse_unfit(source.weights, chosen, source.path)
    except ValueError as error:
        advice = f"a file of {chosen.network}"
        if chosen != source.network:
            advice += f", or leave out --set network to train the {source.network.network} that this is"
        raise ValueError(f"{error}; give --weights {advice}") from None
    if chosen != requested and source.instead_of is None:  # otherwise already logged
        log(f"{source.path.name} has the weights of {_distinguished(chosen, requested)}; this network is trained")
    return chosen


def _agree(network: Architecture, requested: Architecture, fixed: frozenset[str]) -> bool:
    """Return whether two networks agree in the fields that the user has set."""
    return all(getattr(network, name) == getattr(requested, name) for name in fixed.intersection(_NETWORK_FIELDS))


def _distinguished(network: Architecture, other: Architecture) -> str:
    if network.network != other.network:
        return f"{network.network}, not {other.network}"
    stride = f" and the stride in the {network.stride_in}" if network.stride_in else ""
    return f"{network.network} with shortcuts {network.shortcut}{stride}"


def _sizes(source: Source, recipe: Recipe, fixed: frozenset[str]) -> dict[str, Any]:
    """Return the recipe's sizes for the weights, in pixels."""
    side = recipe.test_size or recipe.image_size
    fields: dict[str, Any] = {}
    if side != source.side and not fixed & {"image_size", "test_size"}:
        padding = round(recipe.crop_padding * source.side / side)
        fields |= {"image_size": source.side, "test_size": None, "crop_padding": padding}
        side = source.side
    if "test_shorter_side" not in fixed:
        fields["test_shorter_side"] = round(side * source.shorter_side / source.side)
    return fields


def _read(path: Path, recipe: Recipe, log: Log) -> Source:
    """Return the weights of a run, a checkpoint, or a file of this or another project."""
    if path.is_dir():
        path = next((path / name for name in _HUGGING_FACE_FILES if (path / name).is_file()), path)
    if path.is_dir() and not belongs_to_run(path):
        files = sorted(file for file in path.iterdir() if file.suffix in _WEIGHTS_SUFFIXES)
        such = f", such as {files[0]}" if files else ""
        raise CheckpointError(f"{path} is not a run; give --weights a run, or a file{such}")
    is_of_a_run = path.is_dir() or (path.name == WEIGHTS and belongs_to_run(path))
    return _of_a_run(path) if is_of_a_run else _of_a_file(path, recipe, log)


def _of_a_run(path: Path) -> Source:
    trained = read_trained(path)
    preprocessing = trained.record.preprocessing
    return Source(
        path=trained.weights,
        weights=dict(trained.network.state_dict()),
        network=trained.network.architecture,
        side=preprocessing.crop[0],
        shorter_side=preprocessing.shorter_side,
        mean=preprocessing.mean,
        standard_deviation=preprocessing.standard_deviation,
        labels=trained.record.labels,
    )


def _of_a_file(path: Path, recipe: Recipe, log: Log) -> Source:
    """Return the weights of a file, with the usual image size and statistics of the network's family."""
    weights = read_named(path, log)
    requested = _architecture_of(recipe)
    network = requested if _fit(weights, requested, path) else recognise(weights) or requested
    side = network.image_size
    shorter_side = side
    if network.stem == "7x7":
        shorter_side = _shorter_side_of(path)
    colours = usual_colour_statistics(network)
    return Source(path, weights, network, side, shorter_side, colours.mean, colours.standard_deviation)


def _fit(weights: Mapping[str, Tensor], network: Architecture, path: Path) -> bool:
    try:
        refuse_unfit(weights, network, path)
    except ValueError:
        return False
    return True


def _shorter_side_of(path: Path) -> int:
    """Return the shorter side of a published file's evaluation, or the usual one for other files."""
    digest = sha256_of(path)
    return next((row.shorter_side for row in PUBLISHED if digest.startswith(row.digest)), _USUAL_SHORTER_SIDE)


def _published_or_shipped(recipe: Recipe, fixed: frozenset[str], log: Log) -> Source:
    """Return the published weights, else those of a shipped run, unless the user requires published ones."""
    try:
        published = find_published(_architecture_of(recipe).depth)
        return _of_a_file(fetch_published(published, log), recipe, log)
    except PublishedError as error:
        reason = str(error)
    shipped = None if "weights" in fixed else _closest_shipped(recipe, fixed)
    if shipped is None:
        raise ValueError(
            f"no weights to start {recipe.network} from: {reason}; give --weights FILE, or --set weights=null to "
            "start from chance"
        )
    mismatch = "" if shipped.network.network == recipe.network else f", not the recipe's {recipe.network}"
    log(
        f"no published weights: {reason}. Starting from {shipped.name}, which comes with this project, "
        f"{shipped}{mismatch}"
    )
    return dataclasses.replace(_of_a_run(shipped.path), instead_of=f"published weights: {reason}")


def _closest_shipped(recipe: Recipe, fixed: frozenset[str]) -> ShippedRun | None:
    """Return the shipped run to start from: the default model's, which is the most accurate, else another one.

    None if no network has the fields that the user has set.
    """
    requested = _architecture_of(recipe)
    runs = [run for run in shipped_runs() if run.is_everyday or run.name == SMALL]
    fitting = [run for run in runs if _agree(run.network, requested, fixed)]

    def rank(run: ShippedRun) -> tuple[bool, bool, bool, int]:
        is_same = run.network.network == requested.network
        return run.is_everyday, run.name == DEFAULT, is_same, run.network.depth

    return max(fitting, key=rank, default=None)


def _without_another_head(source: Source, labels: tuple[str, ...]) -> tuple[dict[str, Tensor], str]:
    """Return the weights, without the head if it is for other classes, and a line that reports it."""
    weights, message = fit_head(source.weights, len(labels))
    if message is None and source.labels is not None and source.labels != labels:
        weights = {name: tensor for name, tensor in weights.items() if not name.startswith("fc.")}
        message = "the weights' last layer is for other classes; a new one starts untrained"
    return weights, message or f"the last layer of the weights, for {len(labels):,} classes, is kept"
