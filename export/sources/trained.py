"""The source of an export: a network with its weights, and the facts of its run."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from export.errors import ExportError
from export.graph.to_onnx import Normalize
from export.sources.network_spec import NetworkSpec
from export.sources.random_weights import random_network, settle
from export.sources.sample_images import sample_pixels
from service.images.preprocessing import Resizer
from service.model_files.card import Preprocessing, PublishedWeights
from training.data.dataset import DEFAULT_MAX_SKIPPED
from training.networks.colour_statistics import usual_colour_statistics
from training.networks.resnet import Architecture, ResNet
from training.runs.loading import read_trained
from training.runs.record import RUN_FILE, DatasetRecord, RecordError, RunRecord, read_record, run_folder_of
from training.runs.shipped import ShippedRun, is_shipped, shipped_runs, shown
from training.weights.checkpoint import CheckpointError, find_weights, sha256_of

OWN_RUNS = Path("runs")


class NoRun(ExportError):
    """No run fits the requested network."""


@dataclass(frozen=True, slots=True)
class Source:
    """A network in evaluation mode, and its provenance for the card."""

    network: ResNet
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    name: str  # of the model: <dataset>-<network>
    checkpoint_sha256: str | None = None
    recipe: str | None = None
    seed: int | None = None
    git_commit: str | None = None
    train_set: DatasetRecord | None = None
    validation_set: DatasetRecord | None = None
    test_set: DatasetRecord | None = None
    held_out: tuple[int, ...] = field(default=(), repr=False)
    trained_on: str | None = None  # if there is no run
    synsets: tuple[str, ...] | None = field(default=None, repr=False)  # of the labels, for ImageNet's classes
    published: PublishedWeights | None = None  # of published weights
    max_skipped: float = DEFAULT_MAX_SKIPPED  # share of undecodable files that the recipe accepts
    resizer: Resizer | None = None  # of the run's images, which its fingerprints depend on; None: no run

    @property
    def is_random(self) -> bool:
        """Whether the weights are random, so that results have no meaning."""
        return self.checkpoint_sha256 is None

    @property
    def dataset(self) -> str | None:
        return self.trained_on if self.train_set is None else self.train_set.name


def default_preprocessing(described: Architecture) -> Preprocessing:
    """Return the network family's preprocessing: 224 of 256 pixels, or 64 or 32 without a margin."""
    colours = usual_colour_statistics(described)
    return Preprocessing(
        shorter_side=256 if described.stem == "7x7" else described.image_size,
        crop=(described.image_size, described.image_size),
        interpolation="bilinear",
        mean=colours.mean,
        standard_deviation=colours.standard_deviation,
    )


def from_random_weights(choice: NetworkSpec, labels: Sequence[str] | None, seed: int) -> Source:
    """Return an untrained network with usable results; its labels are class_0, class_1, … by default."""
    described = choice.architecture()
    preprocessing = default_preprocessing(described)
    named = tuple(labels) if labels is not None else numbered(described.num_classes)
    network = random_network(described, len(named), seed)
    settle(network, Normalize(preprocessing)(torch.from_numpy(sample_pixels(preprocessing))))
    return Source(network, named, preprocessing, name=f"random-{described.network}", seed=seed)


def numbered(count: int) -> tuple[str, ...]:
    """Return names for classes without any: class_0, class_1, …"""
    digits = len(str(count - 1))
    return tuple(f"class_{index:0{digits}}" for index in range(count))


def from_run(path: Path, choice: NetworkSpec, labels: Sequence[str] | None) -> Source:
    """Return the network of a run folder, a checkpoint folder or a weights file inside a run.

    Raises ExportError if it is missing or damaged, or does not fit `choice` and `labels`.
    """
    _refuse_contradictions(read_run(path), choice, labels)
    try:
        trained = read_trained(path)
    except CheckpointError as error:
        raise ExportError(str(error)) from None
    record = trained.record
    return Source(
        network=trained.network,
        labels=record.labels,
        preprocessing=record.preprocessing,
        name=_name_of(trained.run, record),
        checkpoint_sha256=sha256_of(trained.weights),
        recipe=record.recipe_name,
        max_skipped=record.max_skipped,
        seed=record.seed,
        git_commit=record.git_commit,
        train_set=record.dataset,
        validation_set=record.validation_dataset,
        test_set=record.test_dataset,
        held_out=record.held_out,
        resizer=record.resizer,
    )


def _name_of(run: Path, facts: RunRecord) -> str:
    """Return the name of the model: dataset-network, or the name of a shipped run."""
    if is_shipped(run) and run.name.endswith(f"-{facts.network}"):
        return model_name(run.name.removesuffix(f"-{facts.network}"), facts.network)
    return model_name(facts.dataset.name, facts.network)


def model_name(dataset: str, network: str) -> str:
    """Return a valid model name: lower-case letters, digits, dots and dashes, at most 64."""
    plain = re.sub(r"[^a-z0-9.]+", "-", dataset.lower()).strip(".-") or "images"
    return f"{plain[: 63 - len(network)]}-{network}"


def read_run(path: Path) -> RunRecord:
    """Return the record of this run, or of the run around this checkpoint. Raises ExportError."""
    try:
        return read_record(run_folder_of(path))
    except CheckpointError as error:
        raise ExportError(str(error)) from None
    except RecordError as error:
        raise ExportError(f"{error}; give another --checkpoint") from None


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the class names in a text file, one a line. Raises ExportError."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError):
        raise ExportError(f"{path} cannot be read; give --labels a text file with one class name a line") from None
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) < 2 or not all(lines):
        raise ExportError(f"{path} must name at least two classes, one a line, without empty lines between them")
    if twice := next((name for name in lines if lines.count(name) > 1), None):
        raise ExportError(f"{path} names {twice!r} twice; give every class a name of its own")
    return tuple(lines)


def _refuse_contradictions(facts: RunRecord, choice: NetworkSpec, labels: Sequence[str] | None) -> None:
    phrases = choice.contradictions(facts.architecture)
    if labels is not None and tuple(labels) != facts.labels:
        phrases.append(f"--labels names {len(labels)} classes that are not the run's {len(facts.labels)}")
    if phrases:
        raise ExportError(f"{'; '.join(phrases)}. Leave the option out, or give another --checkpoint")


def find_run(choice: NetworkSpec, log: Callable[[str], None]) -> Path:
    """Return the newest finished run under runs/ whose network fits. Raises NoRun if there is none.

    Unfinished runs that fit are logged and ignored.
    """
    fitting = [(path, facts) for path in _runs_in(OWN_RUNS) if (facts := _fitting(path, choice)) is not None]
    for path, facts in fitting:
        if facts.finished is None:
            log(f"{path} is unfinished and ignored; --checkpoint {path} exports it as it is")
    finished = sorted((facts.finished, path) for path, facts in fitting if facts.finished is not None)
    if not finished:
        raise NoRun(
            f"no finished run fits {choice}: train one with train-resnet run, name one with --checkpoint, or try "
            "--weights random"
        )
    newest = finished[-1][1]
    others = ", ".join(str(path) for _, path in finished[:-1])
    log(f"{newest} is your {'newest' if others else 'only'} finished run of {choice}{others and f'; older: {others}'}")
    return newest


def find_shipped(choice: NetworkSpec) -> ShippedRun:
    """Return the shipped run that fits; one of everyday things is preferred.

    Raises ExportError if several fit and no depth is given, and NoRun if none fits.
    """
    fitting = [run for run in shipped_runs() if not choice.contradictions(run.network)]
    if not fitting:
        raise NoRun(f"no run fits {choice} of those that come with this project")
    if choice.depth is None and len(fitting) > 1:
        listed = ", ".join(str(shown(run.path)) for run in fitting)
        raise ExportError(f"no run of yours fits, and several shipped ones do; choose one with --checkpoint: {listed}")
    return fitting[0]


def _runs_in(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{RUN_FILE}"))


def _fitting(run: Path, choice: NetworkSpec) -> RunRecord | None:
    try:
        facts = read_run(run)
        find_weights(run)
    except (ExportError, CheckpointError):
        return None
    return None if choice.contradictions(facts.architecture) else facts
