"""The verdicts on the paper's claims, from runs with invented errors."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.runs.run_folders import facts_of, write_run, write_the_four
from training.report import numbers
from training.report.claims import claims
from training.report.content import Claim, Verdict
from training.report.initial_signals import InitialSignals, NetworkSignals
from training.report.runs import read_runs

WORSE, OVERFITTING, VANISHING, CURE, SHORTCUTS, COST = range(6)


def claims_of(runs: Path, signals: InitialSignals | None = None) -> list[Claim]:
    found = [run for run in read_runs(runs)[0] if run.results]
    return claims(numbers.comparable(found), numbers.comparable_shortcuts(found), signals)


def write(runs: Path, errors: dict[str, tuple[float, float]], **changes: Any) -> Path:
    for network, pair in errors.items():
        write_run(runs / network, facts_of(network, *pair, **changes))
    return runs


def test_the_four_runs_support_every_claim_but_the_shortcuts(tmp_path: Path) -> None:
    found = claims_of(write_the_four(tmp_path))
    assert [claim.verdict for claim in found] == [
        Verdict.SUPPORTED,
        Verdict.SUPPORTED,
        Verdict.SUPPORTED,
        Verdict.SUPPORTED,
        Verdict.NOT_MEASURED,
        Verdict.SUPPORTED,
    ]
    assert found[WORSE].number.startswith("+8.00 ± ") and found[CURE].number.startswith("−1.00 ± ")
    assert "1.50 points against 3.00" in found[OVERFITTING].explanation
    assert found[COST].number == "18.6% of VGG-19"


def test_opposite_errors_contradict_the_claims(tmp_path: Path) -> None:
    write(
        tmp_path, {"plain20": (12.0, 15.0), "plain56": (8.0, 11.0), "resnet20": (9.0, 12.0), "resnet56": (12.0, 15.0)}
    )
    found = claims_of(tmp_path)
    assert {found[number].verdict for number in (WORSE, OVERFITTING, CURE)} == {Verdict.CONTRADICTED}


def test_a_difference_smaller_than_its_noise_decides_nothing(tmp_path: Path) -> None:
    found = claims_of(write(tmp_path, {"plain20": (12.0, 15.0), "plain56": (12.1, 15.3)}))
    assert {found[number].verdict for number in (WORSE, OVERFITTING)} == {Verdict.UNRESOLVED}


def test_gradients_of_the_first_layer_that_vanish_contradict_the_claim(tmp_path: Path) -> None:
    facts = facts_of("plain56", 20.0, 22.0)
    layers = list(facts["gradient_norms"]["1"])
    vanished = {layer: 10.0 ** (number - len(layers)) for number, layer in enumerate(layers)}
    write_run(tmp_path / "deep", facts | {"gradient_norms": {"1": vanished}})
    assert claims_of(tmp_path)[VANISHING].verdict is Verdict.CONTRADICTED


def test_the_control_is_named_only_if_its_gradients_vanish(tmp_path: Path) -> None:
    write_the_four(tmp_path)

    def signals(first: float) -> InitialSignals:
        network = NetworkSignals(
            label="a control",
            network="plain56",
            batch_norm=False,
            initialization="He",
            backward=[first, 1.0],
            gradient_over_weight=[1.0, 1.0],
            response=[1.0, 1.0],
        )
        return InitialSignals(images=1, dataset="d", seeds=[0], networks=[network])

    assert (
        "(a control), the first layer's backward signal is 1e-05 of"
        in claims_of(tmp_path, signals(1e-5))[VANISHING].explanation
    )
    assert "a control" not in claims_of(tmp_path, signals(0.5))[VANISHING].explanation


@pytest.mark.parametrize(("error", "verdict"), [(13.9, Verdict.SUPPORTED), (20.0, Verdict.CONTRADICTED)])
def test_shortcuts_differ_little_up_to_the_papers_spread(tmp_path: Path, error: float, verdict: Verdict) -> None:
    write_the_four(tmp_path)
    for kind, test_error in (("B", 13.6), ("C", error)):
        facts = facts_of("resnet20", 9.0, test_error, shortcut=kind)
        write_run(tmp_path / kind, facts | {"recipe": facts["recipe"] | {"shortcut": kind}})
    claim = claims_of(tmp_path)[SHORTCUTS]
    assert claim.verdict is verdict and "with C above A" in claim.explanation


def test_without_runs_only_the_counted_claim_has_a_verdict(tmp_path: Path) -> None:
    verdicts = [claim.verdict for claim in claims_of(tmp_path)]
    assert verdicts == [Verdict.NOT_MEASURED] * 5 + [Verdict.SUPPORTED]
