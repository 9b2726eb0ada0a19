"""The tables of the report, as plain text cell by cell: HTML and Markdown both come from them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from training.report import layer_numbers, numbers
from training.report.content import Table
from training.report.drawing import cased, display
from training.report.numbers import Comparison, Mean, Summary
from training.report.paper_figures import Published


def budget(steps: int, full_steps: int | None) -> str:
    """Return what a run's length is of its recipe's."""
    if full_steps is None:
        return f"{steps:,} steps (full length unknown)"
    if steps >= full_steps:
        return f"{steps:,} steps (full length)"
    return f"{steps:,} of {full_steps:,} steps ({100 * steps / full_steps:.3g}%)"


def differences(comparison: Comparison) -> Table:
    """Return by how many points one network's errors are above another's."""
    rows = [
        (
            f"{cased(row['network'])} against {cased(row['against'])}",
            _signed(row["train_error"]),
            _signed(row["test_error"]),
        )
        for row in numbers.differences(comparison)
    ]
    return Table(("difference", "training error, points", "test error, points"), rows)


def errors(summaries: Iterable[Summary]) -> Table:
    """Return the results: a row for each set of runs that differ in nothing but the seed."""
    header = ("network", "shortcut", "training error", "test error", "paper", "budget", "seeds", "recipe", "trained on")
    rows = [
        (
            cased(row.network),
            row.shortcut or "-",
            _mean(row.train_error),
            _mean(row.test_error),
            _number(row.paper_error),
            budget(row.steps, row.full_steps),
            ", ".join(map(str, row.seeds)),
            row.recipe,
            f"{row.dataset}, {_trained_on(row)}",
        )
        for row in summaries
    ]
    return Table(header, rows)


def _trained_on(row: Summary) -> str:
    return f"{row.images - row.held_out_images:,} of {row.images:,}" if row.held_out_images else f"{row.images:,}"


def published(found: Iterable[Published]) -> Table:
    """Return what others have measured."""
    rows = [
        (cased(row.network), row.source, f"{row.test_error:.2f}", _number(row.train_error), row.how) for row in found
    ]
    return Table(("network", "source", "test error", "training error", "how"), rows)


def responses(found: Mapping[str, Sequence[float]]) -> Table:
    """Return the layers' responses in brief."""
    rows = [
        (display(network), str(len(values)), *(f"{value:.3f}" for value in layer_numbers.spread(values)))
        for network, values in found.items()
    ]
    return Table(("network", "layers", "smallest", "median", "mean", "largest"), rows)


def shortcuts(comparison: Comparison) -> Table:
    """Return what the shortcuts cost and bring."""
    header = ("network", "shortcut", "parameters", "multiply-adds", "training error", "test error", "paper")
    rows = [
        (
            cased(row["network"]),
            row["shortcut"],
            f"{row['parameters']:,}",
            f"{row['multiply_adds'] / 1e6:,.1f} M",
            _mean(row["train_error"]),
            _mean(row["test_error"]),
            _number(row["paper_error"]),
        )
        for row in numbers.shortcuts(comparison)
    ]
    return Table(header, rows)


def costs(found: Iterable[Mapping[str, Any]]) -> Table:
    """Return what the networks cost beside VGG-19."""
    header = ("network", "shortcut", "parameters", "multiply-adds", "of VGG-19", "paper's count", "paper's top-1 error")
    rows = [
        (
            cased(row["network"]),
            row["shortcut"] or "-",
            f"{row['parameters'] / 1e6:.1f} M",
            f"{row['multiply_adds'] / 1e9:.2f} G",
            f"{row['multiply_adds_relative_to_vgg19']:.1%}",
            f"{row['paper_multiply_adds'] / 1e9:.1f} G",
            _number(row["paper_top1_error"]),
        )
        for row in found
    ]
    return Table(header, rows)


def gradients(found: Mapping[str, Mapping[int, Sequence[float]]]) -> Table:
    """Return the norms of the convolutions' gradients in brief."""
    rows = []
    for network, moments in found.items():
        for step, norms in moments.items():
            ratio = f"{norms[0] / norms[-1]:,.4g}" if norms[-1] else "-"
            values = (f"{value:.3g}" for value in (norms[0], norms[-1], min(norms), max(norms)))
            rows.append((display(network), f"{step:,}", *values, ratio))
    return Table(("network", "step", "first layer", "last layer", "smallest", "largest", "first ÷ last"), rows)


def gaps(comparison: Comparison) -> Table:
    """Return the gap between training and test error, which is what overfitting widens."""
    rows = []
    for network, runs in comparison.runs.items():
        train, test = Mean.of(map(numbers.train_error, runs)), Mean.of(map(numbers.test_error, runs))
        gap = test.mean - train.mean if train and test else None
        rows.append((display(network), _mean(train), _mean(test), _signed(gap)))
    return Table(("network", "training error", "test error", "gap, points"), rows)


def _mean(value: Mean | None) -> str:
    if value is None:
        return "-"
    return f"{value.mean:.2f}" + ("" if value.sd is None else f" ± {value.sd:.2f}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f}"
