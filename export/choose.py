"""Which weights are meant, of all the ways to say it on the command line.

In this order: a checkpoint, published weights by name, a file, random ones; where nothing is said, the only run that
fits, and where no run does, the published default of that depth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from export.calibration import refuse_lack_of_pictures
from export.choice import Choice, parse_choice
from export.errors import ExportError
from export.foreign_source import from_file, from_published, has_published
from export.measure import class_names
from export.options import Wanted
from export.source import NoRun, Source, find_run, from_random_weights, from_run, read_labels
from training.trained import is_of_a_run

RANDOM, TRAINED = "random", "trained"  # what --weights takes beside a file


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says of the network; None where it says nothing."""

    depth: int | None
    variants: tuple[str, ...]
    checkpoint: Path | None
    pretrained: str | None
    weights: str
    seed: int | None
    labels: Path | None
    data: Path | None


def choose(asked: Asked, wanted: Wanted, say: Callable[[str], None]) -> Source:
    """Return the network that is asked for. Raises ExportError, also where two wishes exclude each other.

    What the wanted precision lacks is told before anything is fetched.
    """
    _refuse_contradictions(asked)
    choice = parse_choice(asked.depth, asked.variants)
    if asked.depth is not None:
        choice.architecture()  # a depth that no network has is told as that, not as a run that is missing
    labels = None if asked.labels is None else read_labels(asked.labels)
    if asked.weights == RANDOM:
        if labels is None and asked.data is not None:
            labels = class_names(asked.data, choice.architecture(), say)
        return from_random_weights(choice, labels, asked.seed or 0)
    if asked.pretrained is not None:
        refuse_lack_of_pictures(wanted)
        return from_published(choice, asked.pretrained, labels, say)
    file = _foreign_file(asked)
    if file is not None:
        refuse_lack_of_pictures(wanted)
        data = asked.data
        names_in_data = None if data is None else lambda described: class_names(data, described, say)
        return from_file(file, choice, labels, names_in_data, say)
    return _from_run(asked.checkpoint, choice, labels, wanted, say)


def _foreign_file(asked: Asked) -> Path | None:
    """Return the file of weights that belongs to no run, however it was given."""
    if asked.weights != TRAINED:
        return Path(asked.weights)
    is_foreign = asked.checkpoint is not None and asked.checkpoint.is_file() and not is_of_a_run(asked.checkpoint)
    return asked.checkpoint if is_foreign else None


def _from_run(
    checkpoint: Path | None,
    choice: Choice,
    labels: tuple[str, ...] | None,
    wanted: Wanted,
    say: Callable[[str], None],
) -> Source:
    try:
        run = find_run(choice) if checkpoint is None else checkpoint
    except NoRun:
        if not has_published(choice):
            raise
        say(f"no run fits {choice}; taking published weights")
        try:
            refuse_lack_of_pictures(wanted)
            return from_published(choice, None, labels, say)
        except ExportError as error:
            raise ExportError(f"no run fits {choice} (--checkpoint names one elsewhere), and {error}") from None
    source = from_run(run, choice, labels)
    say(f"exporting {run}")
    return source


def _refuse_contradictions(asked: Asked) -> None:
    given = {
        "--checkpoint": asked.checkpoint is not None,
        "--pretrained": asked.pretrained is not None,
        f"--weights {asked.weights}": asked.weights != TRAINED,
    }
    flags = [flag for flag, is_given in given.items() if is_given]
    if len(flags) > 1:
        raise ExportError(f"{' and '.join(flags)} exclude each other; leave one of them out")
    if asked.seed is not None and asked.weights != RANDOM:
        raise ExportError("--seed is for random weights; add --weights random, or leave it out")
