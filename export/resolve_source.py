"""The choice of the weights by the options of the command line.

In this order: a checkpoint, published weights by name, a file, random ones. Without an option: the newest finished run
under runs/ that fits, else the published default of the depth, else the shipped run of that depth. The choice and its
reason are logged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from export.errors import ExportError
from export.next_step import typed
from export.options import PrecisionOptions
from export.sources.model_archive import from_archive, is_archive
from export.sources.network_spec import NetworkSpec, parse_choice
from export.sources.pretrained import Unavailable, from_file, from_published, has_published
from export.sources.trained import NoRun, Source, find_run, find_shipped, from_random_weights, from_run, read_labels
from export.verification.calibration_images import refuse_lack_of_images
from export.verification.labelled_images import class_names
from training.runs.record import belongs_to_run
from training.runs.shipped import shown

RANDOM, TRAINED, PUBLISHED = "random", "trained", "published"  # values of --weights other than a file


@dataclass(frozen=True, slots=True)
class WeightsRequest:
    """The options that choose the network; None for options without a value."""

    depth: int | None
    variants: tuple[str, ...]
    checkpoint: Path | None
    pretrained: str | None
    weights: str
    seed: int | None
    labels: Path | None
    data: Path | None


def choose(request: WeightsRequest, options: PrecisionOptions, log: Callable[[str], None]) -> Source:
    """Return the requested network. Raises ExportError, also for options that exclude each other.

    If a precision needs images that are missing, it is refused before any download.
    """
    _refuse_contradictions(request)
    choice = parse_choice(request.depth, request.variants)
    if request.depth is not None:
        choice.architecture()  # reports an invalid depth before a missing run
    labels = None if request.labels is None else read_labels(request.labels)
    if request.weights == RANDOM:
        if labels is None and request.data is not None:
            labels = class_names(request.data, choice.architecture(), log)
        return from_random_weights(choice, labels, request.seed or 0)
    if request.pretrained is not None or request.weights == PUBLISHED:
        refuse_lack_of_images(options)
        return from_published(choice, request.pretrained, labels, log)
    file = _foreign_file(request)
    if file is not None:
        refuse_lack_of_images(options)
        if is_archive(file):
            return from_archive(file, choice, labels, log)
        data = request.data
        names_in_data = None if data is None else lambda described: class_names(data, described, log)
        return from_file(file, choice, labels, names_in_data, log)
    return _from_run(request.checkpoint, choice, labels, options, log)


def _foreign_file(request: WeightsRequest) -> Path | None:
    """Return the file of weights that is not part of a run, given by either option."""
    if request.weights not in (TRAINED, PUBLISHED):
        return Path(request.weights)
    is_foreign = (
        request.checkpoint is not None and request.checkpoint.is_file() and not belongs_to_run(request.checkpoint)
    )
    return request.checkpoint if is_foreign else None


def _from_run(
    checkpoint: Path | None,
    choice: NetworkSpec,
    labels: tuple[str, ...] | None,
    options: PrecisionOptions,
    log: Callable[[str], None],
) -> Source:
    if checkpoint is None:
        try:
            run = find_run(choice, log)
        except NoRun as error:
            return _not_from_own_run(str(error), choice, labels, options, log)
    else:
        run = checkpoint
    source = from_run(run, choice, labels)
    log(f"exporting {run}")
    return source


def _not_from_own_run(
    reason: str,
    choice: NetworkSpec,
    labels: tuple[str, ...] | None,
    options: PrecisionOptions,
    log: Callable[[str], None],
) -> Source:
    """Return the published network, else the shipped one. Raises ExportError."""
    if not has_published(choice):
        try:
            return _from_shipped(choice, labels, log)
        except NoRun:
            raise NoRun(reason) from None
    try:
        refuse_lack_of_images(options)
    except ExportError as error:
        raise ExportError(f"no finished run fits {choice}, and {error}") from None
    log(f"no finished run under runs/ fits {choice}; taking published weights")
    try:
        return from_published(choice, None, labels, log)
    except Unavailable as error:
        unavailable = error
    log(f"published weights are not available: {unavailable.reason}")
    try:
        source = _from_shipped(choice, labels, log)
    except NoRun:
        raise ExportError(f"no network of {choice}: {unavailable}") from None
    later = typed("export-onnx", "--depth", str(choice.depth), "--weights", "published")
    log(f"for ImageNet's 1,000 classes, once there is a connection: {later}")
    return source


def _from_shipped(choice: NetworkSpec, labels: tuple[str, ...] | None, log: Callable[[str], None]) -> Source:
    run = find_shipped(choice)
    source = from_run(run.path, choice, labels)
    log(f"exporting {shown(run.path)}, which comes with this project: {run}")
    return source


def _refuse_contradictions(request: WeightsRequest) -> None:
    is_published_by_name = request.weights == PUBLISHED and request.pretrained is not None
    given = {
        "--checkpoint": request.checkpoint is not None,
        "--pretrained": request.pretrained is not None,
        f"--weights {request.weights}": request.weights != TRAINED and not is_published_by_name,
    }
    flags = [flag for flag, is_given in given.items() if is_given]
    if len(flags) > 1:
        raise ExportError(f"{' and '.join(flags)} exclude each other; leave one of them out")
    if request.seed is not None and request.weights != RANDOM:
        raise ExportError("--seed is for random weights; add --weights random, or leave it out")
