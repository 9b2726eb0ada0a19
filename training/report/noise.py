"""Differences between networks, each with its noise: from seeds where there are several, else from the images alone."""

import itertools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from training.report.runs import Run
from training.runs.record import ErrorsRecord

_NORMAL_95 = 1.96  # standard deviations on either side of the mean that have 95% of a normal distribution
_SEED_DEVIATIONS = 2


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of errors, in points of percent, the half-width of its noise, and where that comes from."""

    points: float
    noise: float
    source: str

    @property
    def is_resolved(self) -> bool:
        """Whether the difference exceeds its noise."""
        return abs(self.points) > self.noise

    def __str__(self) -> str:
        return f"{self.points:+.2f} ± {self.noise:.2f} points".replace("-", "−")


def errors_in_training(run: Run) -> ErrorsRecord | None:
    """Return the final errors over the training set."""
    return run.results.train if run.results else None


def errors_in_test(run: Run) -> ErrorsRecord | None:
    """Return the final errors over the test set."""
    return run.results.test if run.results else None


def difference(
    ones: Sequence[Run], others: Sequence[Run], part: Callable[[Run], ErrorsRecord | None]
) -> Difference | None:
    """Return by how much the mean error of `ones` is above that of `others`; None without measurements of both.

    With several seeds on both sides the noise is two standard deviations of the difference of two single runs.
    Otherwise it is the 95% binomial interval of the images, which leaves out how much seeds differ.
    """
    first, second = _measured(ones, part), _measured(others, part)
    if not first or not second:
        return None
    points = statistics.fmean(row.top1 for row in first) - statistics.fmean(row.top1 for row in second)
    if len(first) > 1 and len(second) > 1:
        noise = _SEED_DEVIATIONS * math.hypot(_deviation(first), _deviation(second))
        source = f"two standard deviations over {len(first)} and {len(second)} seeds"
    else:
        noise = math.hypot(binomial_half_width(first[0]), binomial_half_width(second[0]))
        seeds = "one seed each" if len(first) == len(second) == 1 else f"{len(first)} and {len(second)} seeds"
        source = f"95% binomial interval of {_counts(first[0], second[0])} images; {seeds}"
    return Difference(round(points, 4), round(noise, 4), source)


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean error of `count` seeds in percent, the half-width of its interval, and where that comes from."""

    mean: float
    half_width: float
    count: int
    source: str


def interval(runs: Sequence[Run], part: Callable[[Run], ErrorsRecord | None]) -> Interval | None:
    """Return the mean error of runs that differ in the seed only, with its noise; None without measurements."""
    found = _measured(runs, part)
    if not found:
        return None
    mean = statistics.fmean(row.top1 for row in found)
    if len(found) > 1:
        source = f"two standard deviations over {len(found)} seeds"
        return Interval(mean, _SEED_DEVIATIONS * _deviation(found), len(found), source)
    source = f"95% binomial interval of {found[0].images:,} images, one seed"
    return Interval(mean, binomial_half_width(found[0]), 1, source)


def gap(runs: Sequence[Run]) -> float | None:
    """Return by how many points the mean test error is above the mean training error; None without both."""
    train, test = _measured(runs, errors_in_training), _measured(runs, errors_in_test)
    if not train or not test:
        return None
    return statistics.fmean(row.top1 for row in test) - statistics.fmean(row.top1 for row in train)


def widest_difference(runs: Mapping[str, Sequence[Run]]) -> tuple[str, str, Difference] | None:
    """Return the kinds with the lowest and the highest test error, and the difference; None if one has no errors."""
    found = [
        (low, high, between)
        for low, high in itertools.permutations(runs, 2)
        if (between := difference(runs[high], runs[low], errors_in_test)) is not None
    ]
    return max(found, key=lambda item: item[2].points, default=None)


def _measured(runs: Sequence[Run], part: Callable[[Run], ErrorsRecord | None]) -> list[ErrorsRecord]:
    return [errors for errors in map(part, runs) if errors is not None]


def _deviation(errors: Sequence[ErrorsRecord]) -> float:
    return statistics.stdev(row.top1 for row in errors)


def binomial_half_width(errors: ErrorsRecord) -> float:
    """Return the half-width of the 95% interval of an error, in points, that comes from the number of images."""
    share = errors.top1 / 100
    return 100 * _NORMAL_95 * math.sqrt(share * (1 - share) / max(errors.images, 1))


def _counts(one: ErrorsRecord, other: ErrorsRecord) -> str:
    return f"{one.images:,}" if one.images == other.images else f"{one.images:,} and {other.images:,}"
