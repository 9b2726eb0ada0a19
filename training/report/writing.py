"""From a folder of runs to the report: the numbers for programs, the page and the Markdown for people."""

import dataclasses
from pathlib import Path
from typing import Any

from training.report import claims, layer_numbers, numbers, page
from training.report.content import Claim
from training.report.initial_signals import InitialSignals, read_signals
from training.report.markdown import markdown
from training.report.numbers import Mean
from training.report.runs import ReportError, Run, read_runs
from training.report.sections import sections
from training.report.surfaces import read_surfaces


def report_numbers(runs_folder: Path) -> dict[str, Any]:
    """Return the numbers of the report, for programs. Raises ReportError."""
    runs, broken = read_runs(runs_folder)
    finished = [run for run in runs if run.results]
    comparison, shortcuts = numbers.comparable(finished), numbers.comparable_shortcuts(finished)
    gradients = layer_numbers.gradients(comparison)
    return {
        "claims": [dataclasses.asdict(claim) for claim in _claims(finished, read_signals(runs_folder))],
        "runs": [numbers.one_run(run) for run in finished],
        "summaries": [dataclasses.asdict(summary) for summary in numbers.summaries(finished)],
        "unfinished": [_unfinished(run) for run in runs if not run.results],
        "broken": [{"name": name, "reason": reason} for name, reason in broken.items()],
        "degradation": {"steps": comparison.steps, "differences": numbers.differences(comparison)},
        "layer_responses": {
            numbers.dashed(name): values for name, values in layer_numbers.responses(comparison).items()
        },
        "shortcuts": {"steps": shortcuts.steps, "networks": [_plain(row) for row in numbers.shortcuts(shortcuts)]},
        "costs": numbers.costs(),
        "gradient_norms": {numbers.dashed(name): steps for name, steps in gradients.items()},
    }


def _claims(finished: list[Run], signals: InitialSignals | None) -> list[Claim]:
    return claims.claims(numbers.comparable(finished), numbers.comparable_shortcuts(finished), signals)


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: dataclasses.asdict(value) if isinstance(value, Mean) else value for key, value in row.items()}


def _unfinished(run: Run) -> dict[str, Any]:
    step = run.curve[-1].step if run.curve else 0
    return {
        "name": run.name,
        "network": numbers.dashed(run.facts.network),
        "recipe": run.recipe_name,
        "step": step,
        "steps": run.facts.steps,
    }


def write_report(runs_folder: Path, out: Path) -> tuple[Path, list[str]]:
    """Write report.html and report.md; return the page and a line for each run that is not in it.

    Raises ReportError, or OSError if the files cannot be written.
    """
    runs, broken = read_runs(runs_folder)
    if out.resolve().is_relative_to(runs_folder.resolve()):
        raise ReportError(f"{out} is inside the folder of the runs; give another --out")
    out.mkdir(parents=True, exist_ok=True)
    signals = read_signals(runs_folder)
    stated = _claims([run for run in runs if run.results], signals)
    parts = sections(runs, signals, read_surfaces(runs_folder, runs))
    notes = [_unfinished_line(run) for run in runs if not run.results]
    notes += [f"{name} is skipped: {reason}" for name, reason in broken.items()]
    (out / "report.html").write_text(page.html(stated, parts, notes), encoding="utf-8")
    (out / "report.md").write_text(markdown(stated, parts, notes), encoding="utf-8")
    return out / "report.html", notes


def _unfinished_line(run: Run) -> str:
    what = _unfinished(run)
    return f"{run.name} is not finished: {what['recipe']}, {what['step']:,} of {what['steps']:,} steps so far"
