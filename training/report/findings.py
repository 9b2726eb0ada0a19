"""The findings, as sentences computed from the runs.

They state what these runs show, not what the paper found.
"""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from training.report import numbers
from training.report.drawing import cased, display
from training.report.initial_signals import InitialSignals, first_over_last
from training.report.noise import widest_difference
from training.report.numbers import Comparison, Mean, Summary
from training.report.paper_figures import PAPER_SEED_DEVIATION
from training.report.runs import Run
from training.report.surfaces import LossSurface
from training.report.tables import budget

_GROWN = 100  # times the last layer's gradient
_DEEP_AND_SHALLOW = (("plain56", "plain20"), ("resnet56", "resnet20"))
_WEAKER_AND_STRONGER = (("resnet20", "plain20"), ("resnet56", "plain56"), ("resnet56", "resnet20"))


def degradation(comparison: Comparison) -> str:
    """Return what depth did to the training error of each family."""
    parts = [
        f"that of the {'plain' if row['network'] == 'plain-56' else 'residual'} networks "
        f"{'rises' if row['train_error'] > 0 else 'falls'} by {abs(row['train_error']):.2f} points"
        for row in numbers.differences(comparison)
        if row["network"].endswith("-56") and row["against"].endswith("-20") and row["train_error"] is not None
    ]
    if not parts:
        return "Runs of both depths are needed to compare them."
    return f"From 20 to 56 layers the final training error changes: {', '.join(parts)}."


def noise(comparison: Comparison, summaries: Iterable[Summary]) -> str:
    """Return how much runs of the paper's recipe differ by the seed alone: these, of whatever length, and its own."""
    here = [
        f"± {train.sd:.2f} points of training error and ± {test.sd:.2f} of test error ({cased(row.network)}"
        f"{'' if row.steps == comparison.steps else f', {row.steps:,} steps'})"
        for row in summaries
        if row.recipe.startswith("paper-") and (train := row.train_error) and (test := row.test_error)
        if train.sd is not None and test.sd is not None
    ]
    known = "Seeds here differ by " + ", ".join(here) if here else "There is one seed of each network here"
    return (
        f"How much is noise: {known[0].lower() + known[1:]}; the paper's five runs of ResNet-110 at full length differ "
        f"by {PAPER_SEED_DEVIATION} points of test error (standard deviation, table 6). Expect more of shorter runs."
    )


def weaker_responses(responses: Mapping[str, Sequence[float]]) -> str:
    """Return how much weaker residual layers respond than plain ones, and deep ones than shallow ones."""
    medians = {network: statistics.median(values) for network, values in responses.items()}
    parts = [
        f"{display(one)}'s median response is {medians[one] / medians[other]:.0%} of {display(other)}'s"
        for one, other in _WEAKER_AND_STRONGER
        if one in medians and medians.get(other)
    ]
    return f"{', '.join(parts)}." if parts else "Runs of two networks are needed to compare responses."


def vanishing(gradients: Mapping[str, Mapping[int, Sequence[float]]]) -> str:
    """Return how large the first layer's gradients are beside the last one's, in the networks that are compared."""
    parts = []
    for network in (name for name in numbers.THE_FOUR if name in gradients):
        ratios = [norms[0] / norms[-1] for norms in gradients[network].values() if norms[-1]]
        if ratios:
            parts.append(f"{display(network)} {_range(ratios)}")
    found = f"The first layer's relative gradient is so many times the last layer's: {', '.join(parts)}."
    return found + _growth(gradients)


def _growth(gradients: Mapping[str, Mapping[int, Sequence[float]]]) -> str:
    """Return which networks have gradients that grow by orders of magnitude towards the first layer, and when."""
    grown = [
        f"{display(network)} at step {step:,}"
        for network, moments in gradients.items()
        for step, norms in moments.items()
        if norms[-1] and norms[0] / norms[-1] > _GROWN
    ]
    return f" They grow towards the first layers, the opposite of vanishing, in {', '.join(grown)}." if grown else ""


def initial_signals(signals: InitialSignals) -> str:
    """Return what the backward signal does on its way from the last layer to the first, in each setup."""
    ratios = ", ".join(f"{found.label} × {first_over_last(found):.2g}" for found in signals.networks)
    return f"From the last layer to the first the backward signal changes: {ratios}."


def loss_surfaces(surfaces: Mapping[str, LossSurface]) -> str:
    """Return on how much of its plane each network keeps a low loss."""
    shares = ", ".join(f"{display(found.network)} {found.share_near:.0%}" for found in surfaces.values())
    return f"The share of the plane whose loss is at most 1 above that at the weights: {shares}."


def beside_the_paper(summaries: Iterable[Summary]) -> str:
    """Return how far the longest run with the paper's recipe is from the paper's error, by network."""
    longest = {
        row.network: row for row in summaries if row.paper_error is not None and row.recipe == f"paper-{_joined(row)}"
    }  # in order of steps
    parts = [
        f"{cased(network)} {row.test_error.mean - row.paper_error:+.2f} after {budget(row.steps, row.full_steps)}"
        for network, row in longest.items()
        if row.test_error is not None and row.paper_error is not None
    ]
    if not parts:
        return "There is no run here that the paper has a number for."
    return f"Points of test error above the paper's: {'; '.join(parts)}."


def _joined(summary: Summary) -> str:
    return summary.network.replace("-", "")


def shortcuts(comparison: Comparison) -> str:
    """Return the widest difference between the shortcuts, with its noise."""
    found = widest_difference(comparison.runs)
    if found is None:
        return "Runs of at least two shortcuts are needed to compare them."
    low, high, spread = found
    beyond = "exceeds" if spread.is_resolved else "is within"
    return f"The widest difference between the shortcuts, {high} above {low}, is {spread}: it {beyond} the noise."


def cost(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the shares of VGG-19's multiply-adds of the shallow and the deep end."""
    shares = {(row["network"], row["shortcut"]): row["multiply_adds_relative_to_vgg19"] for row in rows}
    return (
        f"ResNet-34 needs {shares['resnet-34', 'A']:.1%} of VGG-19's multiply-adds, and ResNet-152 with its 152 layers "
        f"{shares['resnet-152', 'B']:.0%}."
    )


def other_runs(runs: Sequence[Run]) -> str:
    """Return the number of runs, and the lowest test error with its run."""
    tested = [(error, run) for run in runs if (error := numbers.test_error(run)) is not None]
    count = f"{len(runs)} other run{'s' if len(runs) > 1 else ''}"
    if not tested:
        return f"{count}."
    error, best = min(tested, key=lambda pair: pair[0])
    return f"{count}; the lowest final test error is {error:.2f}% ({best.name})."


def _range(values: Sequence[float]) -> str:
    low, high = (f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def overfitting(comparison: Comparison) -> list[str]:
    """Return what the training errors and the gaps of deep and shallow networks say about overfitting."""
    sentences = []
    for deep, shallow in _DEEP_AND_SHALLOW:
        deeper, shallower = (_errors(comparison.runs.get(network, [])) for network in (deep, shallow))
        if deeper and shallower:
            (train, test), (other_train, other_test) = deeper, shallower
            higher = f"{abs(train - other_train):.2f} points {'above' if train > other_train else 'below'}"
            gaps = f"{test - train:.2f} points against {other_test - other_train:.2f}"
            sentences.append(f"{display(deep)}'s training error is {higher} {display(shallow)}'s, its gap {gaps}.")
    return [" ".join(sentences)] if sentences else []


def _errors(runs: Iterable[Run]) -> tuple[float, float] | None:
    train, test = _mean(runs, numbers.train_error), _mean(runs, numbers.test_error)
    return (train.mean, test.mean) if train and test else None


def _mean(runs: Iterable[Run], error: Callable[[Run], float | None]) -> Mean | None:
    return Mean.of(map(error, runs))
