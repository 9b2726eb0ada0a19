"""Slopes and intervals, against known values."""

import random

import pytest

from tests.reliability.least_squares import slope_of, student_t


def test_points_on_a_line_have_its_slope_and_an_interval_of_no_width() -> None:
    slope = slope_of([0, 1, 2, 3], [5, 7, 9, 11])
    assert (slope.value, slope.low, slope.high) == pytest.approx((2, 2, 2))


def test_the_interval_is_that_of_the_textbook() -> None:
    slope = slope_of([1, 2, 3, 4, 5], [2, 1, 4, 3, 5])  # residuals 3.6, so the error is sqrt(3.6 / 3 / 10)
    assert slope.value == pytest.approx(0.8)
    assert slope.high - slope.value == pytest.approx(3.182 * 0.34641, rel=1e-4)


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (10, 2.228), (11, 2.201), (20, 2.086), (60, 2.0003)])
def test_students_distribution(freedom: int, quantile: float) -> None:
    assert student_t(freedom) == pytest.approx(quantile, abs=1e-3)


def test_the_interval_contains_the_slope_in_nineteen_of_twenty_cases() -> None:
    dice, hits = random.Random(7), 0
    for _ in range(1000):
        slope = slope_of(range(12), [3 * x + dice.gauss(0, 5) for x in range(12)])
        hits += slope.low <= 3 <= slope.high
    assert 930 <= hits <= 970


def test_two_points_have_no_interval() -> None:
    with pytest.raises(ValueError, match="three points, not 2"):
        slope_of([1, 2], [1, 2])
