"""Which weights are meant, of all the ways to say it on the command line.

In this order: a checkpoint, published weights by name, a file, random ones. Where nothing is said: the newest finished
run under runs/ that fits, else the published default of that depth, else the run of that depth that ships with the
project. What was taken, and why, is said.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError
from export.next_step import typed
from export.options import PrecisionOptions
from export.sources.network_spec import NetworkSpec, parse_choice
from export.sources.pretrained import Unavailable, from_file, from_published, has_published
from export.sources.trained import NoRun, Source, find_run, find_shipped, from_random_weights, from_run, read_labels
from export.verification.calibration_images import refuse_lack_of_images
from export.verification.labelled_images import class_names
from training.runs.record import belongs_to_run
from training.runs.shipped import shown

RANDOM, TRAINED, PUBLISHED = "random", "trained", "published"  # what --weights takes beside a file


@dataclass(frozen=True, slots=True)
class WeightsRequest:
    """What the command line says of the network; None where it says nothing."""

    depth: int | None
    variants: tuple[str, ...]
    checkpoint: Path | None
    pretrained: str | None
    weights: str
    seed: int | None
    labels: Path | None
    data: Path | None


def choose(asked: WeightsRequest, wanted: PrecisionOptions, say: Callable[[str], None]) -> Source:
    """Return the requested network. Raises ExportError, also for options that exclude each other.

    A precision without the images that it needs is refused before anything is fetched.
    """
    _refuse_contradictions(asked)
    choice = parse_choice(asked.depth, asked.variants)
    if asked.depth is not None:
        choice.architecture()  # an invalid depth is reported as such, not as a missing run
    labels = None if asked.labels is None else read_labels(asked.labels)
    if asked.weights == RANDOM:
        if labels is None and asked.data is not None:
            labels = class_names(asked.data, choice.architecture(), say)
        return from_random_weights(choice, labels, asked.seed or 0)
    if asked.pretrained is not None or asked.weights == PUBLISHED:
        refuse_lack_of_images(wanted)
        return from_published(choice, asked.pretrained, labels, say)
    file = _foreign_file(asked)
    if file is not None:
        refuse_lack_of_images(wanted)
        data = asked.data
        names_in_data = None if data is None else lambda described: class_names(data, described, say)
        return from_file(file, choice, labels, names_in_data, say)
    return _from_run(asked.checkpoint, choice, labels, wanted, say)


def _foreign_file(asked: WeightsRequest) -> Path | None:
    """Return the file of weights that belongs to no run, however it was given."""
    if asked.weights not in (TRAINED, PUBLISHED):
        return Path(asked.weights)
    is_foreign = asked.checkpoint is not None and asked.checkpoint.is_file() and not belongs_to_run(asked.checkpoint)
    return asked.checkpoint if is_foreign else None


def _from_run(
    checkpoint: Path | None,
    choice: NetworkSpec,
    labels: tuple[str, ...] | None,
    wanted: PrecisionOptions,
    say: Callable[[str], None],
) -> Source:
    if checkpoint is None:
        try:
            run = find_run(choice, say)
        except NoRun as error:
            return _not_from_own_run(str(error), choice, labels, wanted, say)
    else:
        run = checkpoint
    source = from_run(run, choice, labels)
    say(f"exporting {run}")
    return source


def _not_from_own_run(
    reason: str,
    choice: NetworkSpec,
    labels: tuple[str, ...] | None,
    wanted: PrecisionOptions,
    say: Callable[[str], None],
) -> Source:
    """Return the published network, else the shipped one. Raises ExportError."""
    if not has_published(choice):
        try:
            return _from_shipped(choice, labels, say)
        except NoRun:
            raise NoRun(reason) from None
    try:
        refuse_lack_of_images(wanted)
    except ExportError as error:
        raise ExportError(f"no finished run fits {choice}, and {error}") from None
    say(f"no finished run under runs/ fits {choice}; taking published weights")
    try:
        return from_published(choice, None, labels, say)
    except Unavailable as error:
        unavailable = error
    say(f"published weights cannot be had: {unavailable.reason}")
    try:
        source = _from_shipped(choice, labels, say)
    except NoRun:
        raise ExportError(f"no network of {choice}: {unavailable}") from None
    later = typed("export-onnx", "--depth", str(choice.depth), "--weights", "published")
    say(f"for ImageNet's 1,000 classes, once there is a connection: {later}")
    return source


def _from_shipped(choice: NetworkSpec, labels: tuple[str, ...] | None, say: Callable[[str], None]) -> Source:
    run = find_shipped(choice)
    source = from_run(run.path, choice, labels)
    say(f"exporting {shown(run.path)}, which comes with this project: {run}")
    return source


def _refuse_contradictions(asked: WeightsRequest) -> None:
    is_published_by_name = asked.weights == PUBLISHED and asked.pretrained is not None
    given = {
        "--checkpoint": asked.checkpoint is not None,
        "--pretrained": asked.pretrained is not None,
        f"--weights {asked.weights}": asked.weights != TRAINED and not is_published_by_name,
    }
    flags = [flag for flag, is_given in given.items() if is_given]
    if len(flags) > 1:
        raise ExportError(f"{' and '.join(flags)} exclude each other; leave one of them out")
    if asked.seed is not None and asked.weights != RANDOM:
        raise ExportError("--seed is for random weights; add --weights random, or leave it out")
