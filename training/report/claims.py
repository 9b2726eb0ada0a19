"""The claims of the paper, each with the verdict of the runs that are there.

A verdict is computed: a difference counts when it exceeds its noise (`training.report.noise`).
"""

from collections.abc import Callable, Sequence

from training.report import numbers
from training.report.content import Claim, Verdict
from training.report.drawing import display
from training.report.initial_signals import InitialSignals, first_over_last
from training.report.layer_numbers import relative_gradients
from training.report.noise import Difference, difference, errors_in_test, errors_in_training, gap, widest_difference
from training.report.numbers import Comparison
from training.report.paper_figures import paper_shortcut_spread
from training.report.runs import Run
from training.report.tables import budget
from training.runs.record import ErrorsRecord

DEPTH_FIGURE, GRADIENT_FIGURE, SHORTCUT_FIGURE, COST_FIGURE = "curves", "gradients", "shortcuts", "costs"
_VANISHED = 0.01  # a first layer whose gradient, relative to its weights, is below this share of the last layer's
_NOT_MEASURED = "The runs for this claim are missing; the section names the commands that make them."
_GRADIENT_NOISE = "no interval: norms of single batches, first seed; the smallest and the largest of the logged steps"
_COUNT_NOISE = "no interval: counted from the layers"


def claims(comparison: Comparison, shortcuts: Comparison, signals: InitialSignals | None) -> list[Claim]:
    """Return the six claims, in the order in which the paper makes them."""
    return [
        _deeper_is_worse(comparison),
        _not_overfitting(comparison),
        _not_vanishing(comparison, signals),
        _residuals_cure(comparison),
        _shortcuts_are_alike(shortcuts),
        _cheaper_than_vgg(),
    ]


def _unmeasured(statement: str, figure: str) -> Claim:
    return Claim(statement, Verdict.NOT_MEASURED, "–", _NOT_MEASURED, "", figure)


def _runs(comparison: Comparison, network: str) -> Sequence[Run]:
    return comparison.runs.get(network, [])


def _at(comparison: Comparison) -> str:
    return budget(comparison.steps or 0, comparison.full_steps)


def _verdict(found: Difference, *, is_higher: bool) -> Verdict:
    """Return the verdict on a claim that the difference is positive, or with `is_higher` false negative."""
    if not found.is_resolved:
        return Verdict.UNRESOLVED
    return Verdict.SUPPORTED if (found.points > 0) == is_higher else Verdict.CONTRADICTED


def _deeper_is_worse(comparison: Comparison) -> Claim:
    explanation = f"Test error of plain-56 above plain-20, after {_at(comparison)}."
    return _of_plain_networks(comparison, "Deeper is worse for plain networks.", errors_in_test, explanation)


def _not_overfitting(comparison: Comparison) -> Claim:
    statement = "The reason is not overfitting: the training error is higher, too."
    gaps = _gaps(_runs(comparison, "plain56"), _runs(comparison, "plain20"))
    explanation = f"Training error of plain-56 above plain-20.{gaps}"
    return _of_plain_networks(comparison, statement, errors_in_training, explanation)


def _of_plain_networks(
    comparison: Comparison, statement: str, errors: Callable[[Run], ErrorsRecord | None], explanation: str
) -> Claim:
    """Return the claim that plain-56 has more of these errors than plain-20."""
    found = difference(_runs(comparison, "plain56"), _runs(comparison, "plain20"), errors)
    if found is None:
        return _unmeasured(statement, DEPTH_FIGURE)
    return Claim(statement, _verdict(found, is_higher=True), str(found), explanation, found.source, DEPTH_FIGURE)


def _gaps(deep: Sequence[Run], shallow: Sequence[Run]) -> str:
    """Return the gaps between test and training error as a sentence."""
    deeper, shallower = gap(deep), gap(shallow)
    if deeper is None or shallower is None:
        return ""
    return f" Overfitting widens the gap to the test error; here it is {deeper:.2f} points against {shallower:.2f}."


def _not_vanishing(comparison: Comparison, signals: InitialSignals | None) -> Claim:
    statement = "The reason is not vanishing gradients."
    ratios = [norms[0] / norms[-1] for norms in relative_gradients(comparison).get("plain56", {}).values()]
    if not ratios:
        return _unmeasured(statement, GRADIENT_FIGURE)
    low, high = min(ratios), max(ratios)
    verdict = Verdict.SUPPORTED if low > _VANISHED else Verdict.CONTRADICTED
    range_of = f"{low:.3g} times" if low == high else f"{low:.3g} to {high:,.4g} times"
    explanation = (
        "The first layer's gradient over the last layer's in plain-56, each relative to its weights; vanishing "
        "gradients would make this far smaller than 1."
    )
    control = signals.control if signals else None
    if control is not None and first_over_last(control) < _VANISHED:
        explanation += (
            f" Where they do vanish ({control.label}), the first layer's backward signal is "
            f"{first_over_last(control):.0e} of the last layer's."
        )
    return Claim(statement, verdict, range_of, explanation, _GRADIENT_NOISE, GRADIENT_FIGURE)


def _residuals_cure(comparison: Comparison) -> Claim:
    statement = "Shortcuts cure it: the deeper residual network is the better one."
    deep, shallow = _runs(comparison, "resnet56"), _runs(comparison, "resnet20")
    found, trained = difference(deep, shallow, errors_in_test), difference(deep, shallow, errors_in_training)
    if found is None:
        return _unmeasured(statement, DEPTH_FIGURE)
    explanation = "Test error of ResNet-56 against ResNet-20"
    explanation += f"; training error {trained}." if trained else "."
    return Claim(statement, _verdict(found, is_higher=False), str(found), explanation, found.source, DEPTH_FIGURE)


def _shortcuts_are_alike(comparison: Comparison) -> Claim:
    statement = "Shortcuts A, B and C differ little."
    if any(kind not in comparison.runs for kind in numbers.SHORTCUTS):
        return _unmeasured(statement, SHORTCUT_FIGURE)
    found = widest_difference({kind: comparison.runs[kind] for kind in numbers.SHORTCUTS})
    if found is None:
        return _unmeasured(statement, SHORTCUT_FIGURE)
    (best, worst, spread), paper = found, paper_shortcut_spread()
    is_small = abs(spread.points) <= max(paper, spread.noise)
    explanation = (
        f"Test error of {display(numbers.SHORTCUT_NETWORK)} with {worst} above {best}, the widest difference of the "
        f"three, after {_at(comparison)}. The paper's ResNet-34 on ImageNet: {paper:.2f} points."
    )
    verdict = Verdict.SUPPORTED if is_small else Verdict.CONTRADICTED
    return Claim(statement, verdict, str(spread), explanation, spread.source, SHORTCUT_FIGURE)


def _cheaper_than_vgg() -> Claim:
    rows = {(row["network"], row["shortcut"]): row for row in numbers.costs()}
    resnet34, deepest = rows["resnet-34", "A"], rows["resnet-152", "B"]
    share, deep_share = (row["multiply_adds_relative_to_vgg19"] for row in (resnet34, deepest))
    return Claim(
        "Residual networks cost less than VGG-19.",
        Verdict.SUPPORTED if deep_share < 1 else Verdict.CONTRADICTED,
        f"{share:.1%} of VGG-19",
        f"Multiply-adds of ResNet-34, the paper says 18%: {1 / share:.1f} times fewer. "
        f"ResNet-152 needs {deep_share:.0%}.",
        _COUNT_NOISE,
        COST_FIGURE,
    )
