"""Faults under load."""

import math
from collections import Counter
from types import SimpleNamespace

import pytest

from tests.reliability import chaos
from tests.reliability.checked_load import Known
from tests.reliability.faults import FAULTS, Fault
from tests.reliability.report import Report


def test_a_fault_gives_one_row_without_a_broken_promise() -> None:
    report = chaos.run([fault for fault in FAULTS if fault.name == "worker killed"])
    assert report.broken == []
    ((name, _, requests, wrong, _, _),) = report.rows
    assert (name, wrong) == ("worker killed", "0")
    assert int(requests) >= 200


@pytest.mark.parametrize(
    ("outcomes", "normal_s", "deaths", "words"),
    [
        ({"right": 5, "wrong": 1}, 0.0, 0, "1 wrong answers"),
        ({"right": 5, "500 internal_error": 1}, 0.0, 0, "1 requests failed, at most 0"),
        ({"right": 5}, math.inf, 0, "not normal"),
        ({"right": 5}, 0.0, 2, "2 workers ended, not 0"),
    ],
)
def test_a_broken_promise_is_reported(outcomes: dict[str, int], normal_s: float, deaths: int, words: str) -> None:
    report = Report("chaos", "", ())
    failures = {kind: count for kind, count in outcomes.items() if kind not in ("right", "wrong")}
    load = SimpleNamespace(outcomes=Counter(outcomes), failures=failures)
    scene = SimpleNamespace(load=load, notes=[], served=SimpleNamespace(log=[]))
    chaos._note(Fault("x", lambda _: ""), scene, "", normal_s, deaths, report)  # type: ignore[arg-type]
    assert len(report.broken) == 1
    assert words in report.broken[0]


def test_another_label_or_probability_is_a_wrong_answer() -> None:
    known = Known(b"", "red", 0.5)
    answers = [
        {"predictions": [{"label": label, "probability": p}]} for label, p in (("red", 0.5), ("red", 0.6), ("a", 0.5))
    ]
    assert [known.is_right(answer) for answer in answers] == [True, False, False]


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_fault(fault: Fault) -> None:
    report = chaos.run([fault])
    assert report.broken == []
    if report.rows[0][1].startswith("skipped"):
        pytest.skip(report.rows[0][1])
