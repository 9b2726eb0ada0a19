"""The arithmetic of the benchmark, with answers worked out by hand."""

import math

import pytest

from benchmarks.serving.clients.figures import (
    Outcome,
    Stage,
    admitted,
    goodput_ceiling,
    quantile,
    ratios,
    recovery_s,
    refused,
    spread,
)


def outcome(scheduled_s: float, latency_s: float = 0.01, status: int = 200, *, is_rested: bool = True) -> Outcome:
    return Outcome(scheduled_s, latency_s, status, status == 200, is_rested, None)


def test_a_quantile_lies_between_the_two_values_beside_it() -> None:
    assert quantile([4, 1, 3, 2], 0.5) == 2.5
    assert quantile([10, 20, 30, 40, 50], 0.25) == 20
    assert quantile(range(101), 0.99) == 99
    assert quantile([7], 0.99) == 7
    assert math.isnan(quantile([], 0.5))


def test_a_spread_has_the_three_quartiles_and_the_number_of_values() -> None:
    found = spread([5, 1, 3, 2, 4])
    assert (found.lower, found.median, found.upper, found.count) == (2, 3, 4, 5)


def test_ratios_are_taken_pair_by_pair() -> None:
    # The machine got ten times slower in the middle: each pair says 2, the ratio of medians would not.
    pairs = [(200.0, 100.0), (20.0, 10.0), (220.0, 110.0)]
    assert ratios(pairs).median == 2
    assert (ratios(pairs).lower, ratios(pairs).upper) == (2, 2)


def test_a_peer_that_answers_nothing_makes_the_ratio_infinite() -> None:
    assert math.isinf(ratios([(1.0, 0.0)]).median)


def test_a_schedule_is_even_and_stays_within_its_stage() -> None:
    times = Stage(begins_s=2, seconds=0.5, rate=8).schedule()
    assert times == [2, 2.125, 2.25, 2.375]


def test_goodput_counts_right_answers_that_were_complete_within_the_stage() -> None:
    stage = Stage(begins_s=10, seconds=2, rate=1)
    outcomes = [
        outcome(9.9, 0.2),  # asked before, answered within
        outcome(11.0, 0.5),
        outcome(11.9, 0.2),  # answered too late
        outcome(10.5, 0.1, status=503),
        Outcome(10.6, 0.1, 200, False, True, None),  # wrong labels
    ]
    assert stage.goodput(outcomes) == 1.0


def test_a_stage_owns_what_was_scheduled_in_it_however_late_it_was_answered() -> None:
    stage = Stage(begins_s=1, seconds=1, rate=1)
    assert stage.of([outcome(0.9), outcome(1.0, 30), outcome(1.9), outcome(2.0)]) == [outcome(1.0, 30), outcome(1.9)]


def test_admitted_requests_are_counted_apart_from_refused_ones_and_from_those_after_a_refusal() -> None:
    outcomes = [
        outcome(0, 0.1),
        outcome(0, 0.2, status=503),
        outcome(0, 0.3, status=503, is_rested=False),
        outcome(0, 9, status=0),
    ]
    assert admitted(outcomes) == [0.1]
    assert refused(outcomes) == [0.2]
    assert refused(outcomes, is_rested=False) == [0.3]


@pytest.mark.parametrize(
    ("overload", "refusal_cost", "share"),
    [(4, 0.0, 1.0), (4, 0.01, 0.9697), (4, 0.05, 0.8421), (4, 0.25, 0.0), (8, 0.25, 0.0)],
)
def test_the_ceiling_of_goodput_follows_from_the_cost_of_a_refusal(
    overload: float, refusal_cost: float, share: float
) -> None:
    assert goodput_ceiling(overload, refusal_cost) == pytest.approx(share, abs=1e-4)


def test_recovery_is_the_first_moment_after_which_nothing_fails_and_a_second_is_fast() -> None:
    stage = Stage(begins_s=100, seconds=5, rate=10)
    outcomes = [
        outcome(at, status=503) if at < 100.3 else outcome(at, 0.5 if at < 100.75 else 0.01) for at in stage.schedule()
    ]
    assert recovery_s(outcomes, stage, limit_s=0.05) == pytest.approx(0.8)


def test_a_single_failure_late_in_the_stage_means_that_things_were_not_normal_before_it() -> None:
    stage = Stage(begins_s=0, seconds=5, rate=10)
    outcomes = [outcome(at, status=503 if at == 3.0 else 200) for at in stage.schedule()]
    assert recovery_s(outcomes, stage, limit_s=0.05) == pytest.approx(3.1)


def test_what_stays_slow_never_recovers() -> None:
    stage = Stage(begins_s=0, seconds=3, rate=10)
    assert math.isinf(recovery_s([outcome(at, 0.2) for at in stage.schedule()], stage, limit_s=0.05))
