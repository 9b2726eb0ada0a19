"""The comparisons: which runs belong together, their means and deviations, and what stands against what.

Only runs of the paper's recipe, on the same images and with the same number of steps, are compared with each other.
"""

import dataclasses
import functools
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from training.networks.cost import cost_of, relative_to_vgg19, vgg_cost
from training.networks.resnet import architecture
from training.recipes.catalog import RECIPES
from training.report.paper_figures import PAPER_COSTS, PUBLISHED, Published
from training.report.runs import Run

THE_FOUR = ("plain20", "plain56", "resnet20", "resnet56")
SHORTCUTS = ("A", "B", "C")
SHORTCUT_NETWORK = "resnet20"

cost_of_network = functools.cache(
    cost_of
)  # building a deep network takes a tenth of a second, even without its weights


@dataclass(frozen=True, slots=True)
class Mean:
    """Mean and sample standard deviation (None for a single value) of `n` seeds."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Mean | None":
        """Return the mean of the values that are there; None if there are none."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        deviation = round(statistics.stdev(known), 4) if len(known) > 1 else None
        return cls(round(statistics.fmean(known), 4), deviation, len(known))


@dataclass(frozen=True, slots=True)
class Summary:
    """Runs that differ in nothing but the seed. Errors in percent, of the final weights."""

    network: str
    shortcut: str | None
    recipe: str
    dataset: str
    images: int
    held_out_images: int  # of those, that were not trained on
    steps: int
    full_steps: int | None
    seeds: list[int]
    train_error: Mean | None
    test_error: Mean | None
    paper_error: float | None
    published: list[Published]


def dashed(network: str) -> str:
    """Return plain-56 for plain56, resnet-56 for resnet56."""
    return network.rstrip("0123456789") + "-" + network.lstrip("abcdefghijklmnopqrstuvwxyz")


def train_error(run: Run) -> float | None:
    """Return the error in percent over the whole training set, in evaluation mode and without augmentation."""
    return run.results.train.top1 if run.results and run.results.train else None


def test_error(run: Run) -> float | None:
    """Return the error in percent over the test set."""
    return run.results.test.top1 if run.results and run.results.test else None


def one_run(run: Run) -> dict[str, Any]:
    """Return one finished run for programs."""
    facts = run.facts
    held_out = run.results.held_out if run.results else None
    return {
        "name": run.name,
        "network": dashed(facts.network),
        "shortcut": facts.shortcut,
        "recipe": facts.recipe["name"],
        "changed": run.changed_fields,
        "dataset": facts.dataset.name,
        "images": facts.dataset.images,
        "held_out_images": len(facts.held_out),
        "steps": facts.steps,
        "full_steps": run.full_steps,
        "seed": facts.seed,
        "train_error": _rounded(train_error(run)),
        "held_out_error": _rounded(held_out.top1 if held_out else None),
        "test_error": _rounded(test_error(run)),
        "paper_error": run.paper_error,
        "processor": facts.hardware.get("processor"),
        "precision": facts.hardware.get("precision"),
        "git_commit": facts.git_commit,
        "started": facts.started,
        "finished": facts.finished,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def one_of_each_seed(runs: Iterable[Run]) -> list[Run]:
    """Return the first run of each seed: a repeated run is no further sample."""
    first: dict[int, Run] = {}
    for run in runs:
        first.setdefault(run.facts.seed, run)
    return sorted(first.values(), key=lambda run: run.facts.seed)


def summaries(runs: list[Run]) -> list[Summary]:
    """Return finished runs, those that differ in nothing but the seed as one; plain nets first, shallow before deep."""
    groups: defaultdict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in runs:
        facts = run.facts
        key = (facts.network, facts.shortcut, facts.stride_in, run.recipe_name, facts.dataset.fingerprint, facts.steps)
        groups[key].append(run)
    return sorted((_summary(one_of_each_seed(group)) for group in groups.values()), key=_order)


def _summary(group: list[Run]) -> Summary:
    run = group[0]
    return Summary(
        network=dashed(run.facts.network),
        shortcut=run.facts.shortcut,
        recipe=run.recipe_name,
        dataset=run.facts.dataset.name,
        images=run.facts.dataset.images,
        held_out_images=len(run.facts.held_out),
        steps=run.facts.steps,
        full_steps=run.full_steps,
        seeds=[run.facts.seed for run in group],
        train_error=Mean.of(map(train_error, group)),
        test_error=Mean.of(map(test_error, group)),
        paper_error=run.paper_error,
        published=_published(run),
    )


def _published(run: Run) -> list[Published]:
    usual = run.facts.shortcut == architecture(run.facts.network).shortcut
    return [
        row for row in PUBLISHED if row.network == dashed(run.facts.network) and usual and run.is_of_the_papers_data
    ]


def _order(summary: Summary) -> tuple[str, int, str, str, int]:
    family, depth = summary.network.split("-")
    return family, int(depth), summary.shortcut or "", summary.recipe, summary.steps


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs of the paper's recipe that may be compared: same images, same number of steps."""

    steps: int | None  # None: there are no such runs
    full_steps: int | None
    runs: dict[str, list[Run]]  # network → runs, by seed; shallow before deep, plain before residual

    def first(self) -> dict[str, Run]:
        """Return the run with the lowest seed of each network."""
        return {network: runs[0] for network, runs in self.runs.items()}


def comparable(runs: list[Run]) -> Comparison:
    """Return the largest set of runs with equal budgets: most of the four networks, then the longest."""
    eligible = [run for run in runs if run.is_of_the_papers_recipe and run.facts.shortcut in (None, "A")]
    return _largest_set(eligible, lambda run: run.facts.network, THE_FOUR)


def comparable_shortcuts(runs: list[Run]) -> Comparison:
    """Return the largest set of runs of ResNet-20 with equal budgets, by shortcut instead of network."""
    eligible = [run for run in runs if run.is_of_the_papers_recipe and run.facts.network == SHORTCUT_NETWORK]
    return _largest_set(eligible, lambda run: run.facts.shortcut or "", SHORTCUTS)


def _largest_set(runs: list[Run], kind: Callable[[Run], str], selected: tuple[str, ...]) -> Comparison:
    sets: dict[tuple[str, int], dict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    by_depth = sorted(runs, key=lambda run: (int(dashed(run.facts.network).split("-")[1]), kind(run), run.facts.seed))
    for run in by_depth:
        group = sets[run.facts.dataset.fingerprint, run.facts.steps][kind(run)]
        if run.facts.seed not in {other.facts.seed for other in group}:  # a repeated run is no further sample
            group.append(run)
    if not sets:
        return Comparison(None, None, {})
    (_, steps), chosen = max(sets.items(), key=lambda item: (len(item[1].keys() & set(selected)), item[0][1]))
    one_each = {name: one_of_each_seed(several) for name, several in chosen.items()}
    return Comparison(steps, next(iter(one_each.values()))[0].full_steps, one_each)


def differences(comparison: Comparison) -> list[dict[str, Any]]:
    """Return by how many points the first network's errors are above the second's, for the pairs that are there."""
    pairs = (("plain56", "plain20"), ("resnet56", "resnet20"), ("plain20", "resnet20"), ("plain56", "resnet56"))
    return [
        {
            "network": dashed(one),
            "against": dashed(other),
            "train_error": _difference(comparison.runs[one], comparison.runs[other], train_error),
            "test_error": _difference(comparison.runs[one], comparison.runs[other], test_error),
        }
        for one, other in pairs
        if one in comparison.runs and other in comparison.runs
    ]


def _difference(ones: list[Run], others: list[Run], error: Callable[[Run], float | None]) -> float | None:
    one, other = Mean.of(map(error, ones)), Mean.of(map(error, others))
    return round(one.mean - other.mean, 4) if one and other else None


def shortcuts(comparison: Comparison) -> list[dict[str, Any]]:
    """Return cost and errors of ResNet-20 with each shortcut, and of ResNet-34, which the paper compares them on."""
    paper = {(row.network, row.shortcut): row.top1_error for row in PAPER_COSTS}
    paper[SHORTCUT_NETWORK, "A"] = RECIPES[f"paper-{SHORTCUT_NETWORK}"].expected_error
    rows = []
    for network in (SHORTCUT_NETWORK, "resnet34"):
        for kind in SHORTCUTS:
            cost = cost_of_network(network, kind)
            runs = comparison.runs.get(kind, []) if network == SHORTCUT_NETWORK else []
            row = {
                "network": dashed(network),
                "shortcut": kind,
                "parameters": cost.parameters,
                "multiply_adds": cost.multiply_adds,
                "train_error": Mean.of(map(train_error, runs)),
                "test_error": Mean.of(map(test_error, runs)),
                "paper_error": paper.get((network, kind)),
            }
            rows.append(row)
    return rows


def costs() -> list[dict[str, Any]]:
    """Return what the paper's networks cost as it describes them (v1), beside VGG and beside its own figures."""
    rows = []
    for paper in PAPER_COSTS:
        if paper.network.startswith("vgg"):
            cost = vgg_cost(int(paper.network.removeprefix("vgg")))
        else:
            bottleneck = paper.network in ("resnet50", "resnet101", "resnet152")
            cost = cost_of_network(paper.network, paper.shortcut, "1x1" if bottleneck else None)
        beside = {"paper_multiply_adds": paper.multiply_adds * 1e9, "paper_top1_error": paper.top1_error}
        rows.append(dataclasses.asdict(cost) | relative_to_vgg19(cost) | beside | {"network": dashed(cost.network)})
    return rows
