"""The runs of a report: each is complete, or it is left out with one line that gives the reason.

A folder may come from an older version of this code, from someone else, or from a run that was killed while it wrote.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat, TypeAdapter, ValidationError

from training.networks.resnet import architecture
from training.recipes.catalog import RECIPES
from training.recipes.recipe import DESCRIPTIVE, Recipe
from training.report.paper_figures import CIFAR10_CLASSES
from training.runs.record import METRICS_FILE, RecordError, ResultsRecord, RunRecord, first_fault, read_record

# What may differ between a run and its recipe without making it another experiment, or has a column of its own.
_NOT_A_CHANGE = {"network", "shortcut", "stride_in", "epochs", "steps", *DESCRIPTIVE}


class ReportError(Exception):
    """There is nothing to report on. The message is one line that names the next step."""


class Point(BaseModel):
    """One line of metrics.jsonl; errors in percent."""

    model_config = ConfigDict(frozen=True)

    step: int
    train_error: FiniteFloat
    held_out_error: FiniteFloat | None = None
    test_error: FiniteFloat | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder."""

    name: str
    facts: RunRecord
    curve: tuple[Point, ...]

    @property
    def results(self) -> ResultsRecord | None:
        """The final errors, or None while the run is not finished."""
        return self.facts.results if self.facts.finished else None

    @property
    def recipe_name(self) -> str:
        """The recipe's name, with the fields that were set otherwise than it has them."""
        changed = [f"{field}={value}" for field, value in self.changed_fields.items()]
        return ", ".join([str(self.facts.recipe["name"]), *changed])

    @property
    def changed_fields(self) -> dict[str, Any]:
        """Fields of the recipe whose values are not those of the recipe of that name, its length aside."""
        known = _known_recipe(self.facts)
        if known is None:
            return {}
        return {
            field: value
            for field, value in self.facts.recipe.items()
            if field not in _NOT_A_CHANGE and _as_json(getattr(known, field, value)) != value
        }

    @property
    def full_steps(self) -> int | None:
        """Steps of the recipe at full length on this data, or None if there is no such recipe any more."""
        known = _known_recipe(self.facts)
        if known is None:
            return None
        return known.total_steps(self.facts.dataset.images - len(self.facts.held_out))

    @property
    def is_of_the_papers_data(self) -> bool:
        """Whether the classes are those of the data set that the network was made for: CIFAR-10 or ImageNet."""
        if architecture(self.facts.network).imagenet:
            return len(self.facts.labels) == 1000
        return sorted(self.facts.labels) == sorted(CIFAR10_CLASSES)

    @property
    def paper_error(self) -> float | None:
        """The error in the paper for this network, shortcut and data set, in percent; None where it has none."""
        paper = RECIPES.get(f"paper-{self.facts.network}")
        if paper is None or not self.is_of_the_papers_data:
            return None
        same = architecture(paper.network, paper.shortcut).shortcut == self.facts.shortcut
        return paper.expected_error if same else None

    @property
    def is_of_the_papers_recipe(self) -> bool:
        """Whether this is the paper's recipe on the paper's data, at whatever length and with whatever shortcut."""
        known = self.facts.recipe["name"] == f"paper-{self.facts.network}" and _known_recipe(self.facts) is not None
        return known and self.is_of_the_papers_data and not self.changed_fields


def _known_recipe(facts: RunRecord) -> Recipe | None:
    return RECIPES.get(str(facts.recipe["name"]))


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def read_runs(folder: Path) -> tuple[list[Run], dict[str, str]]:
    """Return the runs in a folder, in order of their names, and for each folder that is broken the reason.

    Raises ReportError if there is no such folder.
    """
    if not folder.is_dir():
        raise ReportError(f"there is no folder {folder}; name the one that holds the run folders with --runs")
    runs, broken = [], {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))):
        try:
            runs.append(_read_run(place))
        except ReportError as error:
            broken[place.name] = str(error)
    return runs, broken


def _read_run(place: Path) -> Run:
    try:
        return Run(place.name, read_record(place), _read_curve(place / METRICS_FILE))
    except RecordError as error:
        raise ReportError(error.reason) from None


def _read_curve(file: Path) -> tuple[Point, ...]:
    """Return the whole lines; a run that was killed may have left half of one, a run that has just begun no file."""
    try:
        lines = file.read_bytes().split(b"\n")[:-1] if file.exists() else []
        return tuple(TypeAdapter(Point).validate_json(line) for line in lines)
    except OSError as error:
        raise ReportError(f"{file.name} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise ReportError(f"{file.name} has no usable {first_fault(error)}") from None
