"""The six parts of the report, in words and tables: what was run with which budget, and what it shows.

A sentence here is computed from the runs, so it says what they show and not what the paper hopes for. What is missing
is said, with the command that makes it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.report import figures, numbers
from training.report.numbers import Comparison, Mean, Summary
from training.report.published import PAPER_SEED_DEVIATION
from training.report.runs import Run

_DATA = "--data cifar10-train.tar --test-data cifar10-test.tar"


@dataclass(frozen=True, slots=True)
class Table:
    """Plain text, cell by cell."""

    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report. `missing` are commands that make the runs that it lacks."""

    letter: str
    title: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    panels: list[figures.Panel] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def sections(finished: list[Run]) -> list[Section]:
    """Return all six parts, also those that there are no runs for."""
    comparison = numbers.comparable(finished)
    return [
        _degradation(comparison),
        _errors(numbers.summaries(finished), comparison),
        _responses(comparison),
        _shortcuts(numbers.comparable_shortcuts(finished), comparison),
        _costs(),
        _gradients(comparison),
    ]


def budget(steps: int, full_steps: int | None) -> str:
    """Return what a run's length is of its recipe's."""
    if full_steps is None:
        return f"{steps:,} steps (full length unknown)"
    if steps >= full_steps:
        return f"{steps:,} steps (full length)"
    return f"{steps:,} of {full_steps:,} steps ({steps / full_steps:.2g}× full length)"


def _command(network: str, steps: int | None, full_steps: int | None, extra: str = "") -> str:
    name = f"paper-{network}" + extra.replace(" --set shortcut=", "-").lower()
    length = f" --steps {steps}" if steps and steps != full_steps else ""
    return f"train-resnet run --recipe paper-{network}{extra}{length} {_DATA} --out training/results/{name}"


def _missing_networks(comparison: Comparison, has: Iterable[str]) -> list[str]:
    absent = [network for network in numbers.THE_FOUR if network not in set(has)]
    return [_command(network, comparison.steps, comparison.full_steps) for network in absent]


def _what_was_run(comparison: Comparison) -> str:
    """Return one sentence on networks, budget, seeds and pictures."""
    runs = [run for several in comparison.runs.values() for run in several]
    names = ", ".join(figures.display(network) for network in comparison.runs)
    seeds = "; ".join(sorted({_seeds([run.facts.seed for run in several]) for several in comparison.runs.values()}))
    data = runs[0].facts.dataset
    sentence = (
        f"Run: {names}; the paper's recipe, {budget(comparison.steps or 0, comparison.full_steps)}, {seeds}, "
        f"on the same {data.images:,} pictures of {data.name}."
    )
    short = comparison.full_steps is not None and (comparison.steps or 0) < comparison.full_steps
    return sentence + (" The schedule keeps its shape, but the runs are shortened." if short else "")


def _seeds(seeds: Sequence[int]) -> str:
    return ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(map(str, seeds))


def _degradation(comparison: Comparison) -> Section:
    part = Section("a", "Degradation: deeper plain networks train worse, residual ones do not")
    part.missing.extend(_missing_networks(comparison, comparison.runs))
    if not comparison.runs:
        return part
    part.paragraphs.append(_what_was_run(comparison))
    part.paragraphs.append(
        "Solid: test error. Dashed: training error of augmented pictures while the weights changed, epoch by epoch. "
        "The numbers below are of the final weights, in evaluation mode, the training error over the whole training "
        "set without augmentation."
    )
    for family in ("plain", "resnet"):
        if any(network.startswith(family) for network in comparison.runs):
            part.panels.append(figures.error_curves(comparison.runs, family))
    part.tables.append(_differences(comparison))
    part.paragraphs.append(
        f"How much is noise: five runs of ResNet-110 at full length differ by {PAPER_SEED_DEVIATION} points of test "
        "error (standard deviation, the paper's table 6); shorter runs differ by more."
    )
    return part


def _differences(comparison: Comparison) -> Table:
    rows = [
        (
            f"{figures.cased(row['network'])} against {figures.cased(row['against'])}",
            _signed(row["train_error"]),
            _signed(row["test_error"]),
        )
        for row in numbers.differences(comparison)
    ]
    return Table(("difference", "training error, points", "test error, points"), rows)


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"


def _errors(summaries: list[Summary], comparison: Comparison) -> Section:
    part = Section("b", "Final errors, beside the paper's and what others have published")
    part.missing.extend(_missing_networks(comparison, comparison.runs))
    if not summaries:
        return part
    part.paragraphs.append(
        "Errors in percent, of the final weights; mean ± standard deviation where there are several seeds. Only a row "
        "at full length of the paper's recipe can be held against the paper's number; the others show what a smaller "
        "budget gives."
    )
    part.tables.append(error_table(summaries))
    published = {row: None for summary in summaries for row in summary.published}
    if published:
        part.paragraphs.append("Published by others, at full length:")
        rows = [
            (figures.display(row.network), row.source, f"{row.test_error:.2f}", _number(row.train_error), row.how)
            for row in published
        ]
        part.tables.append(Table(("network", "source", "test error", "training error", "how"), rows))
    return part


def error_table(summaries: list[Summary]) -> Table:
    """Return the table of results: a row for each set of runs that differ in nothing but the seed."""
    header = ("network", "shortcut", "recipe", "data", "budget", "seeds", "training error", "test error", "paper")
    return Table(
        header,
        [
            (
                figures.cased(row.network),
                row.shortcut or "-",
                row.recipe,
                row.dataset,
                budget(row.steps, row.full_steps),
                ", ".join(map(str, row.seeds)),
                _mean(row.train_error),
                _mean(row.test_error),
                _number(row.paper_error),
            )
            for row in summaries
        ],
    )


def _mean(value: Mean | None) -> str:
    if value is None:
        return "-"
    return f"{value.mean:.2f}" + ("" if value.sd is None else f" ± {value.sd:.2f}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _responses(comparison: Comparison) -> Section:
    part = Section("c", "Layer responses: residual functions stay near zero")
    responses = numbers.responses(comparison)
    part.missing.extend(_missing_networks(comparison, responses))
    if not responses:
        return part
    part.paragraphs.extend(
        [
            _what_was_run(comparison),
            "The standard deviation of each 3×3 layer's output after batch norm, before the activation or the addition "
            "(the paper's figure 7), of the final weights of the first seed. The paper finds weaker responses in residual "
            "networks than in plain ones, and the weaker the deeper the network.",
        ]
    )
    part.panels.extend(figures.response_curves(responses))
    rows = [
        (figures.display(network), str(len(values)), *(f"{value:.3f}" for value in numbers.spread(values)))
        for network, values in responses.items()
    ]
    part.tables.append(Table(("network", "layers", "smallest", "median", "mean", "largest"), rows))
    return part


def _shortcuts(comparison: Comparison, four: Comparison) -> Section:
    part = Section("d", "Shortcuts A, B and C: what they cost and what they bring")
    steps, full_steps = (comparison.steps, comparison.full_steps) if comparison.runs else (four.steps, four.full_steps)
    absent = [kind for kind in numbers.SHORTCUTS if kind not in comparison.runs]
    for kind in absent:
        extra = "" if kind == "A" else f" --set shortcut={kind}"
        part.missing.append(_command(numbers.SHORTCUT_NETWORK, steps, full_steps, extra))
    part.paragraphs.append(
        "A: zeros for new channels, no parameters. B: 1×1 convolutions where the shape changes. C: 1×1 convolutions "
        "everywhere. Parameters and multiply-adds are counted, not taken from the paper; ResNet-34's errors are the "
        "paper's (table 3, ten crops)."
    )
    if comparison.runs:
        part.paragraphs.append(f"Errors of ResNet-20: {budget(comparison.steps or 0, comparison.full_steps)}.")
    part.tables.append(_shortcut_table(comparison))
    return part


def _shortcut_table(comparison: Comparison) -> Table:
    rows = []
    paper = {(row["network"], row["shortcut"]): row["paper_top1_error"] for row in numbers.costs()}
    for cost in numbers.shortcut_costs():
        runs = comparison.runs.get(cost.shortcut or "", []) if cost.network == numbers.SHORTCUT_NETWORK else []
        rows.append(
            (
                figures.display(cost.network),
                cost.shortcut or "-",
                f"{cost.parameters:,}",
                f"{cost.multiply_adds / 1e6:,.1f} M",
                _mean(Mean.of([numbers.train_error(run) for run in runs])),
                _mean(Mean.of([numbers.test_error(run) for run in runs])),
                _number(paper.get((numbers.dashed(cost.network), cost.shortcut))),
            )
        )
    header = ("network", "shortcut", "parameters", "multiply-adds", "training error", "test error", "paper")
    return Table(header, rows)


def _costs() -> Section:
    part = Section("e", "Costs against VGG-19")
    rows: list[dict[str, Any]] = numbers.costs()
    part.paragraphs.append(
        "Counted on the networks as the paper describes them (224×224 pixels, 1000 classes, a bottleneck's stride in "
        "its first 1×1); convolutions and linear layers. Nothing is trained for this part; the errors are the paper's."
    )
    part.panels.append(figures.cost_bars(rows))
    header = ("network", "shortcut", "parameters", "multiply-adds", "of VGG-19", "paper's count", "paper's top-1 error")
    part.tables.append(
        Table(
            header,
            [
                (
                    figures.cased(row["network"]),
                    row["shortcut"] or "-",
                    f"{row['parameters'] / 1e6:.1f} M",
                    f"{row['multiply_adds'] / 1e9:.2f} G",
                    f"{row['multiply_adds_relative_to_vgg19']:.1%}",
                    f"{row['paper_multiply_adds'] / 1e9:.1f} G",
                    _number(row["paper_top1_error"]),
                )
                for row in rows
            ],
        )
    )
    return part


def _gradients(comparison: Comparison) -> Section:
    part = Section("f", "Neither vanishing gradients nor overfitting")
    gradients = numbers.gradients(comparison)
    part.missing.extend(_missing_networks(comparison, gradients))
    if not gradients:
        return part
    part.paragraphs.extend(
        [
            _what_was_run(comparison),
            "If gradients vanished, those of the first layers would be smaller than those of the last by orders of "
            "magnitude, the more so the deeper the network. And if a deep plain network overfitted, its training error "
            "would be low; part (a) has the training errors, and the gap to the test error stands below.",
        ]
    )
    part.panels.extend(figures.gradient_curves(network, steps) for network, steps in gradients.items())
    rows = [
        (
            figures.display(network),
            f"{step:,}",
            *(f"{value:.3g}" for value in (norms[0], min(norms), max(norms), norms[0] / norms[-1])),
        )
        for network, steps in gradients.items()
        for step, norms in steps.items()
    ]
    part.tables.append(Table(("network", "step", "first layer", "smallest", "largest", "first ÷ last"), rows))
    part.tables.append(_overfitting(comparison))
    return part


def _overfitting(comparison: Comparison) -> Table:
    rows = []
    for network, runs in comparison.runs.items():
        train = Mean.of([numbers.train_error(run) for run in runs])
        test = Mean.of([numbers.test_error(run) for run in runs])
        gap = test.mean - train.mean if train and test else None
        rows.append((figures.display(network), _mean(train), _mean(test), _signed(gap)))
    return Table(("network", "training error", "test error", "gap, points"), rows)
