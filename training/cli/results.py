"""`train-resnet archive`, `report` and `evaluate`: commands that use the folder of a finished run."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from training.cli.failure import fail
from training.cli.run_command import MaxSkipped


class ReportFormat(StrEnum):
    html = "html"
    json = "json"


def archive(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Argument(help="A new folder, such as training/results/my-run.")],
) -> None:
    """Copy the lasting results of a run: facts, measurements, and the weights in half precision."""
    from training.finished_runs.archive import ArchiveError
    from training.finished_runs.archive import archive as keep
    from training.weights.checkpoint import CheckpointError

    try:
        weights = keep(run, out)
    except (ArchiveError, CheckpointError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot write to {out}: {error.strerror}; give another folder")
    typer.echo(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB")


def report(
    runs: Annotated[Path, typer.Option(help="Folder of the run folders.")] = Path("training/results"),
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html and report.md; default: report.", show_default=False)
    ] = None,
    output: Annotated[
        ReportFormat, typer.Option("--format", help="html, or json: the numbers on standard output.")
    ] = ReportFormat.html,
) -> None:
    """Compare the runs with each other and with the paper: one HTML page and a Markdown table."""
    from training.report.runs import ReportError
    from training.report.writing import report_numbers, write_report

    try:
        if out is not None or output is ReportFormat.html:
            written, notes = write_report(runs, out or Path("report"))
            for line in (*notes, f"done: {written}, and report.md beside it"):
                typer.echo(line, err=True)
        if output is ReportFormat.json:
            typer.echo(json.dumps(report_numbers(runs), indent=1))
    except ReportError as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot write to {out or 'report'}: {error.strerror}; give another --out")


def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="A run folder, a checkpoint in it, or its weights file.")],
    data: Annotated[Path, typer.Option(help="Images with labels, in any form that `run` reads.")],
    views: Annotated[
        str, typer.Option(help="The views of an image that are scored: centre, mirror, ten-crop or multi-scale.")
    ] = "centre",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results; default: evaluation/<views> in the run's.", show_default=False),
    ] = None,
    max_skipped: MaxSkipped = None,
) -> None:
    """Measure a trained network: errors, metrics of each class, confusion matrix, calibration."""
    from training.data.dataset import DataError
    from training.finished_runs.evaluate_command import EvaluationError, table
    from training.finished_runs.evaluate_command import evaluate as measure
    from training.weights.checkpoint import CheckpointError

    try:
        facts, folder = measure(
            checkpoint, data, views, out, max_skipped=max_skipped, log=lambda line: typer.echo(line, err=True)
        )
    except (EvaluationError, CheckpointError, DataError, ValueError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot read {error.filename or data}: {error.strerror}")
    typer.echo(table(facts))
    typer.echo(f"done: {folder / 'evaluation.json'}, and confusion_matrix.png beside it", err=True)
