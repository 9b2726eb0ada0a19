"""Run folders, read with suspicion: a run is whole, or it is left out with one line that says why.

A folder may come from an older version of this code, from someone else, or from a run that was killed while it wrote.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, FiniteFloat, PositiveInt, TypeAdapter, ValidationError

from training.networks.resnet import architecture
from training.recipes.catalog import RECIPES
from training.recipes.recipe import DESCRIPTIVE, Recipe
from training.report.paper_figures import CIFAR10_CLASSES

# What may differ between a run and its recipe without making it another experiment, or has a column of its own.
_NOT_A_CHANGE = {"network", "shortcut", "stride_in", "epochs", "steps", *DESCRIPTIVE}


class ReportError(Exception):
    """There is nothing to report on. The message is one line that names the next step."""


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True)


class Errors(_Facts):
    """Top-1 error in percent, over so many images."""

    top1: FiniteFloat
    images: int


class Results(_Facts):
    """The errors of a run's final weights, without augmentation."""

    train: Errors | None = None
    held_out: Errors | None = None
    test: Errors | None = None


class DatasetFacts(_Facts):
    """The images that a run was trained on."""

    name: str
    images: PositiveInt
    fingerprint: str


class RunFacts(_Facts):
    """What the report needs of run.json."""

    network: str
    shortcut: str | None
    stride_in: str | None = None
    labels: list[str]
    recipe: dict[str, Any]
    steps: PositiveInt
    seed: int
    dataset: DatasetFacts
    hardware: dict[str, Any] = {}
    git_commit: str | None = None
    started: str | None = None
    finished: str | None = None
    held_out: list[int] = []
    results: Results | None = None
    gradient_norms: dict[int, dict[str, FiniteFloat]] = {}
    layer_responses: dict[str, FiniteFloat] = {}


class Point(_Facts):
    """One line of metrics.jsonl; errors in percent."""

    step: int
    train_error: FiniteFloat
    held_out_error: FiniteFloat | None = None
    test_error: FiniteFloat | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run folder."""

    name: str
    facts: RunFacts
    curve: tuple[Point, ...]

    @property
    def results(self) -> Results | None:
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
        """What the paper has for this network, shortcut and data set, in percent; None where it has no number."""
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


def _known_recipe(facts: RunFacts) -> Recipe | None:
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
        facts = RunFacts.model_validate_json(_bytes_of(place / "run.json"))
        architecture(facts.network, facts.shortcut, facts.stride_in)
    except ValidationError as error:
        raise ReportError(f"run.json has no usable {_first_place(error)}") from None
    except ValueError:
        raise ReportError(f"no network is called {facts.network!r} with shortcut {facts.shortcut!r}") from None
    if not isinstance(facts.recipe.get("name"), str):
        raise ReportError("run.json has no usable recipe.name")
    return Run(place.name, facts, _read_curve(place / "metrics.jsonl"))


def _read_curve(file: Path) -> tuple[Point, ...]:
    """Return the whole lines; a run that was killed may have left half of one, a run that has just begun no file."""
    lines = _bytes_of(file).split(b"\n")[:-1] if file.exists() else []
    try:
        return tuple(TypeAdapter(Point).validate_json(line) for line in lines)
    except ValidationError as error:
        raise ReportError(f"metrics.jsonl has no usable {_first_place(error)}") from None


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise ReportError(f"there is no {file.name}") from None
    except OSError as error:
        raise ReportError(f"{file.name} cannot be read: {error.strerror}") from None


def _first_place(error: ValidationError) -> str:
    return ".".join(map(str, error.errors()[0]["loc"])) or "content"
