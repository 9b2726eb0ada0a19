"""The soak, for seconds, and what it would find in hours."""

import os

import pytest

from tests.reliability import soak
from tests.reliability.processes import MEBIBYTE, Usage
from tests.reliability.report import Report

HOURS = float(os.environ.get("HOURS", soak.DEFAULT_HOURS))


def test_a_soak_of_seconds_has_samples_slopes_and_no_wrong_answer() -> None:
    report = soak.run(4 / 3600, interval_s=0.5, rate_per_s=30)
    assert report.broken == []
    assert len(report.rows) == 8
    assert [fact.partition(":")[0] for fact in report.facts[:5]] == ["RSS", "PSS", "Descriptors", "Threads", "p99"]


def drifting(pss_mib_per_hour: float, descriptors_per_hour: float) -> list[soak.Sample]:
    """Return an hour of samples with some noise."""
    return [
        soak.Sample(
            minute / 60,
            100,
            Usage(
                200 * MEBIBYTE,
                int((150 + minute / 60 * pss_mib_per_hour + minute % 3 / 10) * MEBIBYTE),
                60 + int(minute / 60 * descriptors_per_hour),
                20,
            ),
            5.0,
            0,
        )
        for minute in range(60)
    ]


@pytest.mark.parametrize(
    ("memory", "descriptors", "broken"), [(0.0, 0.0, 0), (0.5, 0.0, 0), (5.0, 0.0, 1), (-5.0, 0.0, 0), (0.0, 12.0, 1)]
)
def test_a_drift_breaks_the_promise(memory: float, descriptors: float, broken: int) -> None:
    report = Report("soak", "", ())
    soak._judge(drifting(memory, descriptors), report)
    assert len(report.broken) == broken


@pytest.mark.long
@pytest.mark.timeout(int(3600 * HOURS) + 600)
def test_soak() -> None:
    assert soak.run(HOURS).broken == []
