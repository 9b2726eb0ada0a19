"""Networks that others trained: published weights by name, or a file in torchvision's, timm's or Hugging Face's names.

A file has neither labels nor preprocessing. If its digest is in the table of published weights, those of the publisher
are used. For other files the usual ones are assumed, which is logged.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from export.errors import ExportError
from export.next_step import typed
from export.sources.imagenet import imagenet_classes
from export.sources.network_spec import NetworkSpec
from export.sources.trained import Source, default_preprocessing, model_name, numbered
from service.model_files.card import Preprocessing, PublishedWeights
from training.networks.colour_statistics import IMAGENET
from training.networks.resnet import Architecture, ResNet, load_weights
from training.runs.shipped import is_checkout, shipped_runs, shown
from training.weights.checkpoint import CheckpointError, sha256_of
from training.weights.conversion import read_named, recognise, refuse_unfit
from training.weights.published import (
    CROP,
    Published,
    PublishedError,
    fetch_published,
    find_published,
    published_as,
)

Log = Callable[[str], None]

_IMAGENET = "imagenet"
_MOST_SHOWN = 3


class Unavailable(ExportError):
    """Published weights are not available here. The message names alternatives, `reason` does not."""

    def __init__(self, reason: str, choice: NetworkSpec) -> None:
        super().__init__(f"{reason}, or give --weights a file; {_ways_out(choice)}")
        self.reason = reason


def _ways_out(choice: NetworkSpec) -> str:
    """Return the alternatives that need no connection."""
    shipped = [run for run in shipped_runs() if run.network.imagenet]
    fitting = [run for run in shipped if not choice.contradictions(run.network)] or shipped
    ways = [f"{typed('export-onnx', '--checkpoint', str(shown(run.path)))} ({run})" for run in fitting[:1]]
    ways += [f"--depth {choice.depth} --weights random, untrained"]
    others = "" if shipped or is_checkout() else "; a checkout of this project has trained networks, this wheel has not"
    return f"what works without internet: {', or '.join(ways)}{others}"


def has_published(choice: NetworkSpec) -> bool:
    """Whether published weights exist for the requested network."""
    try:
        return choice.depth is not None and not _departures(choice) and bool(find_published(choice.depth))
    except PublishedError:
        return False


def from_published(choice: NetworkSpec, name: str | None, labels: Sequence[str] | None, log: Log) -> Source:
    """Return the published network of this name, or the default of the depth, from the cache or its publisher.

    Raises Unavailable if it cannot be downloaded, ExportError if it does not exist.
    """
    depth = choice.architecture().depth
    if departures := _departures(choice):
        raise ExportError(
            f"published weights are of residual networks with shortcuts B, v1.5; leave out --variant {departures}"
        )
    try:
        published = find_published(depth, name)
    except PublishedError as error:
        raise ExportError(f"{error}; choose another --pretrained or --depth") from None
    try:
        path = fetch_published(published, log)
    except PublishedError as error:
        raise Unavailable(str(error), choice) from None
    log(f"exporting {published.name} for {published.network}, {published.licence}, as {published.said_by} describe it")
    return from_file(path, choice, labels, None, log)


def _departures(choice: NetworkSpec) -> str:
    words = ["plain"] if choice.plain else []
    words += [choice.shortcut] if choice.shortcut not in (None, "B") else []
    words += ["v1"] if choice.stride_in == "1x1" else []
    return ",".join(words)


def from_file(
    path: Path,
    choice: NetworkSpec,
    labels: Sequence[str] | None,
    class_names: Callable[[Architecture], Sequence[str]] | None,
    log: Log,
) -> Source:
    """Return the network of a .pth, .bin or .safetensors file.

    `class_names` returns the labels if `labels` are not given and the classes are not ImageNet's. Raises ExportError,
    with names and shapes, for a file that is unreadable or does not fit the requested network.
    """
    weights, described = _read(path, choice, log)
    classes = len(weights["fc.weight"])
    network = ResNet(described, classes)
    load_weights(network, weights)
    sha256 = sha256_of(path)
    published = published_as(sha256, described.depth)
    is_imagenet = described.imagenet and classes == described.num_classes
    if labels is None:
        labels = _labels(described, classes, class_names, is_imagenet=is_imagenet, log=log)
    if len(labels) != classes:
        raise ExportError(f"{path} has {classes:,} classes, there are {len(labels):,} labels; give --labels the others")
    return Source(
        network=network.eval(),
        labels=tuple(labels),
        preprocessing=_preprocessing(published, described, log),
        name=model_name(_IMAGENET if is_imagenet else path.stem, described.network),
        checkpoint_sha256=sha256,
        trained_on=_IMAGENET if is_imagenet else None,
        synsets=imagenet_classes()[1] if is_imagenet else None,
        published=None if published is None else _claim(published),
    )


def _read(path: Path, choice: NetworkSpec, log: Log) -> tuple[dict[str, Tensor], Architecture]:
    try:
        weights = read_named(path, log)
    except (CheckpointError, ValueError) as error:
        raise ExportError(str(error)) from None
    described = _recognised(weights, choice, path)
    try:
        refuse_unfit(weights, described, path)
    except ValueError as error:
        raise ExportError(f"{error}; give --weights another file{_other_choice(weights, choice, path)}") from None
    if "fc.weight" not in weights:
        raise ExportError(
            f"{path} has no last layer, so it knows no classes; train a new one with train-resnet run --recipe "
            f"finetune --weights {path} --data FOLDER"
        )
    return weights, described


def _recognised(weights: Mapping[str, Tensor], choice: NetworkSpec, path: Path) -> Architecture:
    """Return the network that the names show; the request adds what they do not show, and must agree otherwise."""
    found = recognise(weights)
    if found is None and choice.depth is None:
        names = ", ".join(list(weights)[:_MOST_SHOWN])
        raise ExportError(
            f"{path} holds no network that is known here: its tensors are {names}, …; give --weights a ResNet in the "
            "names of torchvision, timm or Hugging Face"
        )
    if found is not None:
        shortcut = choice.shortcut or (None if choice.plain else found.shortcut)
        choice = dataclasses.replace(choice, depth=choice.depth or found.depth, shortcut=shortcut)
    described = choice.architecture()
    if found is None or found.depth != described.depth:
        return described
    return dataclasses.replace(described, stem=found.stem)


def _other_choice(weights: Mapping[str, Tensor], choice: NetworkSpec, path: Path) -> str:
    """Return the advice to omit options, if the weights fit the network that their names show."""
    found = recognise(weights)
    if found is None or choice == NetworkSpec():
        return ""
    try:
        refuse_unfit(weights, found, path)
    except ValueError:
        return ""
    return f", or leave out --depth and --variant to export the {found.network} that this is"


def _labels(
    described: Architecture,
    classes: int,
    class_names: Callable[[Architecture], Sequence[str]] | None,
    *,
    is_imagenet: bool,
    log: Log,
) -> Sequence[str]:
    if is_imagenet:
        log("its 1,000 classes are taken for ImageNet's; if they are others, give their names with --labels")
        return imagenet_classes()[0]
    if class_names is not None:
        return class_names(described)
    log("the file has no names of classes, so they are numbered; give their names with --labels")
    return numbered(classes)


def _preprocessing(published: Published | None, described: Architecture, log: Log) -> Preprocessing:
    if published is not None:
        return Preprocessing(
            shorter_side=published.shorter_side,
            crop=(CROP, CROP),
            interpolation=published.interpolation,
            mean=IMAGENET.mean,
            standard_deviation=IMAGENET.standard_deviation,
        )
    usual = default_preprocessing(described)
    log(
        f"the file does not say how images were prepared; assumed are {usual.shorter_side} pixels on the shorter "
        f"side, {usual.interpolation}, and the colours of {'ImageNet' if described.imagenet else 'CIFAR-10'}"
    )
    return usual


def _claim(published: Published) -> PublishedWeights:
    return PublishedWeights(
        name=published.name,
        url=published.url,
        licence=published.licence,
        top1=published.top1,
        top5=published.top5,
        dataset="ImageNet, 50,000 validation images",
        said_by=published.said_by,
    )
