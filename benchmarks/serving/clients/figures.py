"""The arithmetic of the benchmark: quantiles, schedules, goodput, ratios, recovery. No clock and no socket in here."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

BROKEN = 0  # the status of a request whose connection broke or that was never answered


class Outcome(NamedTuple):
    """The outcome of one request. Times are in seconds since the load began."""

    scheduled_s: float  # when it should have been sent, whether or not the generator or the server let it
    latency_s: float  # from that moment to the last byte of the answer
    status: int
    is_right: bool  # status 200, and the labels are the expected ones
    is_rested: bool  # sent on a connection that was not refused within the last 0.25 s
    retry_after_s: int | None

    @property
    def ended_s(self) -> float:
        """When the answer was complete."""
        return self.scheduled_s + self.latency_s


@dataclass(frozen=True, slots=True)
class Spread:
    """The three quartiles of some values, and how many there were."""

    lower: float
    median: float
    upper: float
    count: int


@dataclass(frozen=True, slots=True)
class Stage:
    """A stretch of constant load: `rate` requests a second, evenly spaced."""

    begins_s: float
    seconds: float
    rate: float

    @property
    def ends_s(self) -> float:
        """When it is over, and the next may begin."""
        return self.begins_s + self.seconds

    def schedule(self) -> list[float]:
        """Return when each request is to be sent."""
        return [self.begins_s + number / self.rate for number in range(round(self.rate * self.seconds))]

    def of(self, outcomes: Iterable[Outcome]) -> list[Outcome]:
        """Return what was scheduled in this stage."""
        return [outcome for outcome in outcomes if self.begins_s <= outcome.scheduled_s < self.ends_s]

    def goodput(self, outcomes: Iterable[Outcome]) -> float:
        """Return the right answers a second that were complete within this stage."""
        good = sum(outcome.is_right and self.begins_s <= outcome.ended_s < self.ends_s for outcome in outcomes)
        return good / self.seconds


def quantile(values: Iterable[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed, interpolated between neighbours; NaN of nothing."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    if place == below:
        return ordered[below]
    return ordered[below] * (below + 1 - place) + ordered[below + 1] * (place - below)


def spread(values: Sequence[float]) -> Spread:
    """Return the quartiles."""
    return Spread(quantile(values, 0.25), quantile(values, 0.5), quantile(values, 0.75), len(values))


def ratios(pairs: Iterable[tuple[float, float]]) -> Spread:
    """Return the quartiles of ours/theirs, pair by pair: what both halves of a pair suffered cancels out."""
    return spread([ours / theirs if theirs else math.inf for ours, theirs in pairs])


def admitted(outcomes: Iterable[Outcome]) -> list[float]:
    """Return the latencies of what was answered with 200."""
    return [outcome.latency_s for outcome in outcomes if outcome.status == 200]


def refused(outcomes: Iterable[Outcome], *, is_rested: bool = True) -> list[float]:
    """Return the latencies of the 503s, of connections that were not refused just before (or that were)."""
    return [outcome.latency_s for outcome in outcomes if outcome.status == 503 and outcome.is_rested is is_rested]


def goodput_ceiling(overload: float, refusal_cost: float) -> float:
    """Return the share of the peak that a server can keep at `overload` times it (facts of queueing, no model).

    With k the overload and r the cost of a refusal as a share of an answer's, of one second of work x goes into answers
    and (k - x) r into refusals, so that x = (1 - k r) / (1 - r).
    """
    return max(0.0, (1 - overload * refusal_cost) / (1 - refusal_cost))


def recovery_s(outcomes: Iterable[Outcome], stage: Stage, limit_s: float, *, window_s: float = 1.0) -> float:
    """Return after how much of a stage things are normal again; infinity if never.

    Normal: from that moment on nothing is refused or fails, and the next second's p99 is within `limit_s`.
    """
    here = sorted(stage.of(outcomes))
    failures = [outcome.scheduled_s for outcome in here if not outcome.is_right]
    begins_s = max(failures, default=stage.begins_s)
    for outcome in here:
        window_ends_s = outcome.scheduled_s + window_s
        if window_ends_s > stage.ends_s:
            break
        window = [each.latency_s for each in here if outcome.scheduled_s <= each.scheduled_s < window_ends_s]
        if outcome.scheduled_s >= begins_s and outcome.is_right and quantile(window, 0.99) <= limit_s:
            return outcome.scheduled_s - stage.begins_s
    return math.inf
