"""`train-resnet`: run a recipe, list the recipes, count costs."""

import dataclasses
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

if TYPE_CHECKING:
    from training.hardware.devices import Hardware
    from training.hardware.process_group import World
    from training.recipes.recipe import Recipe
    from training.runs.options import Options

main = typer.Typer(
    name="train-resnet",
    help="Train residual networks: the paper's, and your own classes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Format(StrEnum):
    table = "table"
    json = "json"


def start() -> None:
    """Run the command line; a package that is not installed is one line, too."""
    try:
        main()
    except ModuleNotFoundError as error:
        typer.echo(
            f"train-resnet: {error.name} is not installed; install this project with the extra train: make install",
            err=True,
        )
        raise SystemExit(1) from None


def _fail(message: str) -> NoReturn:
    typer.echo(f"train-resnet: {message}", err=True)
    raise typer.Exit(1)


_RecipeName = Annotated[str, typer.Option(help="Name of a recipe; `train-resnet recipes` lists them.")]
_TrainingImages = Annotated[
    Path, typer.Option(help="Training images: a folder (or a tar of one) with a folder for each class.")
]
_RunFolder = Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/<recipe>.", show_default=False)]
_TestImages = Annotated[Path | None, typer.Option(help="Test images, used once at the end.")]
_Weights = Annotated[
    str | None,
    typer.Option(
        help="Start from these: a file of torchvision, timm, Hugging Face or a tool that wraps them, or a run."
    ),
]
_Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
_Minutes = Annotated[float | None, typer.Option(help="Minutes; becomes a number of steps.", min=0.01)]
_Epochs = Annotated[float | None, typer.Option(help="Another length, in epochs.", min=0.001)]
_Steps = Annotated[int | None, typer.Option(help="Another length, in steps.", min=1)]
_Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe; repeatable.")
]
_Seed = Annotated[int, typer.Option(help="Everything random follows from it.", min=0)]
_Precision = Annotated[str, typer.Option(help="fp32, bf16, fp16 (GPUs), or auto: what is fast here.")]
_Compile = Annotated[str, typer.Option(help="on, off, or auto: on a GPU that does not replay recorded steps.")]
_Threads = Annotated[int | None, typer.Option(help="CPU threads; default: all cores.", min=1)]
_CheckpointMinutes = Annotated[float, typer.Option(help="Minutes between checkpoints.", min=0)]
_MaxSkipped = Annotated[
    float | None,
    typer.Option(help="Share of undecodable files to accept; default: the recipe's.", min=0, max=1, show_default=False),
]
_Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="Refuse operations that may differ from run to run on a GPU.")
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="One batch through everything; leaves nothing behind.")]
_OverfitBatch = Annotated[
    bool, typer.Option("--overfit-batch", help="Only see whether the network can learn one batch.")
]
_Reading = Annotated[
    Literal["auto", "packed", "streamed"],
    typer.Option(help="packed: pixels in memory; streamed: decoded for each step; auto: packed if it fits."),
]
_Decoders = Annotated[
    int | None,
    typer.Option(help="Processes that decode what is streamed; default: one a core.", min=1, show_default=False),
]
_Resizer = Annotated[
    Literal["auto", "pillow", "cykooz-resizer"],
    typer.Option(help="What resizes images; auto: cykooz-resizer where it is installed, else Pillow."),
]


@main.command()
def run(
    recipe: _RecipeName,
    data: _TrainingImages,
    out: _RunFolder = None,
    test_data: _TestImages = None,
    weights: _Weights = None,
    resume: _Resume = False,
    time_budget: _Minutes = None,
    epochs: _Epochs = None,
    steps: _Steps = None,
    changes: _Changes = None,
    seed: _Seed = 0,
    precision: _Precision = "auto",
    compile: _Compile = "auto",
    threads: _Threads = None,
    checkpoint_every: _CheckpointMinutes = 5.0,
    max_skipped: _MaxSkipped = None,
    deterministic: _Deterministic = False,
    dry_run: _DryRun = False,
    overfit_batch: _OverfitBatch = False,
    reading: _Reading = "auto",
    decoders: _Decoders = None,
    resizer: _Resizer = "auto",
) -> None:
    """Train a network and write a run folder: run.json, metrics.jsonl, checkpoints."""
    from service.images.preprocessing import installed_resizers, usual_resizer
    from training.runs.options import Options

    if resizer != "auto" and resizer not in installed_resizers():
        _fail(f"{resizer} is not installed; install it, or leave out --resizer")
    options = Options(
        out=out or Path("runs") / recipe,
        data=data,
        test_data=test_data,
        seed=seed,
        resume=resume,
        time_budget_minutes=time_budget,
        checkpoint_every_minutes=checkpoint_every,
        max_skipped=max_skipped,
        fixed=frozenset(
            [change.partition("=")[0].strip() for change in changes or ()] + ["weights"] * (weights is not None)
        ),
        reading=None if reading == "auto" else reading,
        decoders=decoders,
        resizer=usual_resizer() if resizer == "auto" else resizer,
    )
    lengths = {"epochs": epochs, "steps": steps}
    if sum(length is not None for length in (*lengths.values(), time_budget)) > 1:
        _fail("give only one of --time-budget, --epochs and --steps")
    chosen = _chosen(recipe, changes or [], lengths, weights)
    world, hardware = _hardware(precision, compile, threads, deterministic=deterministic)
    _train(chosen, options, hardware, world, "dry_run" if dry_run else "overfit_batch" if overfit_batch else None)


def _chosen(name: str, changes: list[str], lengths: dict[str, float | None], weights: str | None) -> "Recipe":
    """Return the recipe as the command line changes it."""
    from training.recipes.catalog import chosen

    given = [f"{field}={length}" for field, length in lengths.items() if length is not None]
    try:
        recipe = chosen(name, [*changes, *given])
    except ValueError as error:
        _fail(str(error))
    return recipe if weights is None else dataclasses.replace(recipe, weights=weights)


def _hardware(precision: str, compile: str, threads: int | None, *, deterministic: bool) -> tuple["World", "Hardware"]:
    """Return the processes of this run and what each computes on."""
    from training.hardware.devices import choose
    from training.hardware.process_group import join

    try:
        world = join()
        return world, choose(precision, compile, threads, processes=world.local_size, deterministic=deterministic)
    except ValueError as error:
        _fail(str(error))


def _train(recipe: "Recipe", options: "Options", hardware: "Hardware", world: "World", trial: str | None) -> None:
    from training.data.dataset import DataError
    from training.runs import sanity_checks as trials
    from training.runs.options import Interrupted, RunError
    from training.runs.progress import Progress
    from training.runs.run import run as train
    from training.trainer.loop import Diverged
    from training.weights.checkpoint import CheckpointError

    do = {"dry_run": trials.dry_run, "overfit_batch": trials.overfit_batch}[trial] if trial else train
    progress = Progress(is_quiet=not world.is_first)
    try:
        do(recipe, options, hardware, progress, world)
    except Interrupted as error:
        progress.close()
        _end_now(str(error))
    except (RunError, DataError, CheckpointError, Diverged) as error:
        _fail(str(error))
    except OSError as error:
        _fail(
            f"{error.filename or options.out}: {error.strerror}; checkpoints so far are intact: mend it, then --resume"
        )
    finally:
        progress.close()
        world.leave()
    if world.is_first and trial is None:
        typer.echo(f"done: {options.out}; export it with: export-onnx --checkpoint {options.out}")


def _end_now(message: str) -> NoReturn:
    """End without waiting for threads that still compute what has been left, or for other processes."""
    typer.echo(f"train-resnet: {message}", err=True)
    sys.stderr.flush()
    os._exit(1)


@main.command()
def recipes() -> None:
    """List the recipes, each with its length, the test error to expect at that length, and where that comes from."""
    from training.recipes.catalog import RECIPES

    row = "{:24} {:>13} {:>6}  {:18}  {}"
    typer.echo(row.format("recipe", "length", "error", "of", "source"))
    for recipe in RECIPES.values():
        length = f"{recipe.steps:,} steps" if recipe.steps else f"{recipe.epochs:g} epochs"
        error = f"{recipe.expected_error:.2f}%" if recipe.expected_error is not None else "-"
        typer.echo(row.format(recipe.name, length, error, recipe.expected_on, recipe.source))


@main.command()
def cost(
    output: Annotated[Format, typer.Option("--format", help="table, or json for programs.")] = Format.table,
) -> None:
    """Count parameters and multiply-adds of every network of the paper, beside VGG-16 and VGG-19."""
    from training.networks.cost import all_costs, relative_to_vgg19

    costs = all_costs()
    if output is Format.json:
        rows = [dataclasses.asdict(cost) | relative_to_vgg19(cost) for cost in costs]
        typer.echo(json.dumps({"networks": rows}, indent=1))
        return
    header = ("network", "shortcut", "stride in", "parameters", "of VGG-19", "multiply-adds", "of VGG-19")
    typer.echo("{:12} {:8} {:9} {:>12} {:>10} {:>15} {:>10}".format(*header))
    for cost in costs:
        parameters, multiply_adds = relative_to_vgg19(cost).values()
        typer.echo(
            f"{cost.network:12} {cost.shortcut or '-':8} {cost.stride_in or '-':9} {cost.parameters:12,} "
            f"{parameters:10.2%} {cost.multiply_adds / 1e6:13,.1f} M {multiply_adds:10.2%}"
        )


class ReportFormat(StrEnum):
    html = "html"
    json = "json"


@main.command("convert-tiny-imagenet")
def convert_tiny_imagenet(
    source: Annotated[Path, typer.Argument(help="tiny-imagenet-200.zip, its folder, or a bare git directory with it.")],
    out: Annotated[Path, typer.Argument(help="Folder for the two tars.")],
) -> None:
    """Make two tars of class folders out of Tiny ImageNet 200: what the everyday recipes train and test on."""
    from training.data_files.listing import DataError
    from training.data_files.tiny_imagenet import convert

    try:
        counts = convert(source, out)
    except DataError as error:
        _fail(str(error))
    for name, images in counts.items():
        typer.echo(f"{out / name}: {images:,} images")


@main.command()
def archive(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    out: Annotated[Path, typer.Argument(help="A new folder, such as training/results/my-run.")],
) -> None:
    """Copy what is worth keeping of a run: facts, measurements, and the weights in half precision."""
    from training.runs.archive import ArchiveError
    from training.runs.archive import archive as keep
    from training.weights.checkpoint import CheckpointError

    try:
        weights = keep(run, out)
    except (ArchiveError, CheckpointError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"cannot write to {out}: {error.strerror}; give another folder")
    typer.echo(f"{weights}: {weights.stat().st_size / 1e6:.1f} MB")


@main.command()
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
        _fail(str(error))
    except OSError as error:
        _fail(f"cannot write to {out or 'report'}: {error.strerror}; give another --out")


@main.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="A run folder, a checkpoint in it, or its weights file.")],
    data: Annotated[Path, typer.Option(help="Images: a folder (or a tar of one) with a folder for each class.")],
    views: Annotated[
        str, typer.Option(help="centre, mirror, ten-crop or multi-scale: what is scored of an image.")
    ] = "centre",
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the results; default: evaluation/<views> in the run's.", show_default=False),
    ] = None,
    max_skipped: _MaxSkipped = None,
) -> None:
    """Measure a trained network: errors, every class, confusion matrix, calibration."""
    from training.data.dataset import DataError
    from training.runs.evaluate_command import EvaluationError, table
    from training.runs.evaluate_command import evaluate as measure
    from training.weights.checkpoint import CheckpointError

    try:
        facts, folder = measure(
            checkpoint, data, views, out, max_skipped=max_skipped, say=lambda line: typer.echo(line, err=True)
        )
    except (EvaluationError, CheckpointError, DataError, ValueError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"cannot read {error.filename or data}: {error.strerror}")
    typer.echo(table(facts))
    typer.echo(f"done: {folder / 'evaluation.json'}, and confusion_matrix.png beside it", err=True)
