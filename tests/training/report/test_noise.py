"""Differences of errors and their noise."""

from pathlib import Path

import pytest

from tests.support.runs.run_folders import facts_of, write_run
from training.report import numbers
from training.report.noise import difference, errors_in_test, errors_in_training, gap, interval, widest_difference
from training.report.runs import Run, read_runs


def runs_of(folder: Path, *errors: tuple[float, float]) -> list[Run]:
    for seed, pair in enumerate(errors):
        write_run(folder / f"seed-{seed}", facts_of("plain20", *pair, seed=seed))
    return read_runs(folder)[0]


def test_one_seed_has_the_binomial_interval_of_the_images(tmp_path: Path) -> None:
    ones, others = runs_of(tmp_path / "one", (5.0, 20.0)), runs_of(tmp_path / "other", (4.0, 10.0))
    found = difference(ones, others, errors_in_test)
    assert found is not None and found.points == 10
    # 1.96 · √(0.2 · 0.8 / 10,000 + 0.1 · 0.9 / 10,000), in points
    assert found.noise == pytest.approx(0.98, abs=1e-4)
    assert found.source == "95% binomial interval of 10,000 images; one seed each" and found.is_resolved


def test_seeds_on_both_sides_give_two_standard_deviations(tmp_path: Path) -> None:
    ones = runs_of(tmp_path / "one", (5.0, 20.0), (5.0, 22.0))
    others = runs_of(tmp_path / "other", (4.0, 20.0), (4.0, 21.0))
    found = difference(ones, others, errors_in_test)
    assert found is not None and found.points == pytest.approx(0.5)
    assert found.noise == pytest.approx(2 * (2 + 0.5) ** 0.5, abs=1e-3) and not found.is_resolved
    assert found.source == "two standard deviations over 2 and 2 seeds"


def test_an_interval_is_that_of_the_seeds_where_there_are_several(tmp_path: Path) -> None:
    several = interval(runs_of(tmp_path / "two", (5.0, 20.0), (5.0, 22.0)), errors_in_test)
    assert several is not None
    assert (several.mean, several.count) == (21, 2) and several.half_width == pytest.approx(2 * 2**0.5)
    one = interval(runs_of(tmp_path / "one", (5.0, 20.0)), errors_in_training)
    assert one is not None and one.half_width == pytest.approx(0.191, abs=1e-3)


def test_nothing_is_compared_with_runs_that_have_no_errors(tmp_path: Path) -> None:
    ones = runs_of(tmp_path / "one", (5.0, 20.0))
    assert difference(ones, [], errors_in_test) is None and interval([], errors_in_test) is None and gap([]) is None
    assert gap(ones) == 15


def test_the_widest_difference_is_between_the_lowest_and_the_highest_error(tmp_path: Path) -> None:
    runs = {name: runs_of(tmp_path / name, (1.0, error)) for name, error in (("A", 11.0), ("B", 14.0), ("C", 12.0))}
    found = widest_difference(runs)
    assert found is not None and found[:2] == ("A", "B") and found[2].points == 3


def test_a_repeated_seed_is_no_second_sample(tmp_path: Path) -> None:
    write_run(tmp_path / "first", facts_of("plain20", 5.0, 20.0))
    write_run(tmp_path / "repeated", facts_of("plain20", 6.0, 21.0))
    runs = read_runs(tmp_path)[0]
    [summary] = numbers.summaries(runs)
    assert summary.seeds == [0] and summary.test_error == numbers.Mean(20.0, None, 1)
    assert [run.name for run in numbers.comparable(runs).runs["plain20"]] == ["first"]
