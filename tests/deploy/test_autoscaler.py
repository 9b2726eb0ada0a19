"""The autoscaler of the tests follows the formula of Kubernetes, and its check finds what it has to find."""

import pytest

from tests.support.monitoring.autoscaler import Autoscaler, problems


def scaler(replicas: int) -> Autoscaler:
    return Autoscaler(target=0.7, most=10, stabilization_s=300, replicas=replicas)


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ([0.7, 0.7], 2),
        ([0.75, 0.75], 2),  # within the tolerance
        ([2.1, 2.1], 6),
        ([0.8, 0.8], 3),
        ([2.1], 3),  # the other one has no metric yet, and counts as idle
        ([], 2),
    ],
)
def test_the_number_follows_the_mean(metrics: list[float], expected: int) -> None:
    assert scaler(2).decide(metrics, 0.0) == expected


def test_the_number_shrinks_only_after_the_window() -> None:
    autoscaler = scaler(1)
    assert [autoscaler.decide([1.4], 0.0), autoscaler.decide([0.1, 0.1], 10.0)] == [2, 2]
    assert autoscaler.decide([0.1, 0.1], 299.0) == 2
    assert autoscaler.decide([0.1, 0.1], 301.0) == 1


def test_a_pod_without_a_metric_keeps_the_number_from_shrinking_too_far() -> None:
    assert scaler(4).decide([0.1, 0.1, 0.1], 1000.0) == 4 - 2  # as if the fourth were at its target


def test_the_number_stays_within_its_limit() -> None:
    assert scaler(2).decide([70.0, 70.0], 0.0) == 10


def test_one_step_up_and_down_is_no_problem() -> None:
    assert problems([1, 1, 2, 3, 3, 2, 1], most=3) == []


@pytest.mark.parametrize(
    ("replicas", "problem"),
    [
        ([1, 2, 1], "the most replicas were 2, not 3"),
        ([1, 3, 3], "3 replicas are left, not 1"),
        ([1, 3, 2, 3, 1], "the number changed its direction 3 times"),
    ],
)
def test_the_check_finds(replicas: list[int], problem: str) -> None:
    assert problems(replicas, most=3) == [problem]
