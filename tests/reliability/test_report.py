"""Tables, JSON and the summary."""

from pathlib import Path

import pytest

from tests.reliability.report import Report, finish


def report(name: str, *broken: str) -> Report:
    return Report(name, f"Run of {name}", ("a", "b"), [("1", "x|y")], ["A fact."], list(broken))


def test_a_report_is_printed_saved_and_in_the_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finish(report("one"), tmp_path) == 0
    assert finish(report("two", "a worker has ended"), tmp_path) == 1
    assert "BROKEN: a worker has ended" in " ".join(capsys.readouterr().out.split())
    summary = (tmp_path / "summary.md").read_text()
    assert summary.index("### Run of one") < summary.index("### Run of two")
    assert "| 1 | x\\|y |" in summary
    assert "- **Broken**: a worker has ended" in summary
    assert "cores of an" in summary
