"""`train-resnet run`: options, checks that need no data, and the errors of a run as one line."""

import dataclasses
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from training.cli.failure import fail
from training.cli.recorded_options import take_options_of, typed_options, without_recorded_lengths

if TYPE_CHECKING:
    from service.images.preprocessing import Resizer
    from training.hardware.devices import Hardware
    from training.hardware.process_group import World
    from training.recipes.recipe import Recipe
    from training.runs.options import Options

_Run = Annotated[
    Path | None,
    typer.Argument(
        help="With --resume: the run to continue, with the options that it was started with.",
        callback=take_options_of,
        is_eager=True,
        show_default=False,
    ),
]
_RecipeName = Annotated[
    str | None, typer.Option(help="Name of a recipe; `train-resnet recipes` lists them.", show_default=False)
]
_TrainingImages = Annotated[
    Path | None,
    typer.Option(
        help="Training images: class folders in a folder, tar or zip; a table; CIFAR; … (docs/training.md lists all).",
        show_default=False,
    ),
]
_RunFolder = Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/<recipe>.", show_default=False)]
_TestImages = Annotated[Path | None, typer.Option(help="Test images, used once at the end.")]
_Weights = Annotated[
    str | None,
    typer.Option(
        help="Initial weights: a run, or a file of torchvision, timm, Hugging Face or a tool that wraps them."
    ),
]
_Resume = Annotated[bool, typer.Option("--resume", help="Continue RUN, or the run in --out.")]
_Minutes = Annotated[float | None, typer.Option(help="Length in minutes, converted to steps.", min=0.01)]
_Epochs = Annotated[float | None, typer.Option(help="Length in epochs instead of the recipe's.", min=0.001)]
_Steps = Annotated[int | None, typer.Option(help="Length in steps instead of the recipe's.", min=1)]
_Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field of the recipe; repeatable.")
]
_Seed = Annotated[int, typer.Option(help="Seed of everything random.", min=0)]
_Precision = Annotated[str, typer.Option(help="fp32, bf16, fp16 (GPUs), or auto: the fastest on this hardware.")]
_Compile = Annotated[str, typer.Option(help="on, off, or auto: on for a GPU without recorded steps.")]
_Threads = Annotated[int | None, typer.Option(help="CPU threads; default: all cores.", min=1)]
_CheckpointMinutes = Annotated[float, typer.Option(help="Minutes between checkpoints.", min=0)]
MaxSkipped = Annotated[
    float | None,
    typer.Option(help="Share of undecodable files to accept; default: the recipe's.", min=0, max=1, show_default=False),
]
_Deterministic = Annotated[
    bool, typer.Option("--deterministic", help="Refuse operations that may differ from run to run on a GPU.")
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Run every stage with one batch; keeps no files.")]
_OverfitBatch = Annotated[
    bool, typer.Option("--overfit-batch", help="Only check that the network can learn one batch.")
]
_Reading = Annotated[
    Literal["auto", "packed", "streamed"],
    typer.Option(help="packed: pixels in memory; streamed: decoded for each step; auto: packed if it fits."),
]
_Decoders = Annotated[
    int | None,
    typer.Option(help="Processes that decode streamed images; default: one a core.", min=1, show_default=False),
]
_Resizer = Annotated[
    Literal["auto", "pillow", "cykooz-resizer"],
    typer.Option(help="Library that resizes images; auto: cykooz-resizer if it is installed, else Pillow."),
]


def run(
    context: typer.Context,
    run: _Run = None,
    recipe: _RecipeName = None,
    data: _TrainingImages = None,
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
    max_skipped: MaxSkipped = None,
    deterministic: _Deterministic = False,
    dry_run: _DryRun = False,
    overfit_batch: _OverfitBatch = False,
    reading: _Reading = "auto",
    decoders: _Decoders = None,
    resizer: _Resizer = "auto",
) -> None:
    """Train a network and write a run folder: run.json, metrics.jsonl, checkpoints."""
    began = time.monotonic()
    from training.runs.options import Options

    if run is not None and not resume:
        fail(f"{run} is only for continuing it; add --resume, or give --out {run} and no other folder")
    if recipe is None or data is None:
        fail("--recipe and --data are needed; or continue a run with --resume RUN")
    lengths = without_recorded_lengths(context, {"epochs": epochs, "steps": steps, "time_budget": time_budget})
    options = Options(
        out=out or Path("runs") / recipe,
        data=data,
        test_data=test_data,
        seed=seed,
        resume=resume,
        time_budget_minutes=lengths.pop("time_budget"),
        checkpoint_every_minutes=checkpoint_every,
        max_skipped=max_skipped,
        fixed=_fixed_fields(changes or [], weights),
        reading=None if reading == "auto" else reading,
        decoders=decoders,
        resizer=_installed(resizer),
        command=typed_options(context),
        began=began,
    )
    if sum(length is not None for length in (*lengths.values(), options.time_budget_minutes)) > 1:
        fail("give only one of --time-budget, --epochs and --steps")
    chosen = _chosen(recipe, changes or [], lengths, weights)
    world, hardware = _hardware(precision, compile, threads, deterministic=deterministic)
    train(chosen, options, hardware, world, "dry_run" if dry_run else "overfit_batch" if overfit_batch else None)


def _installed(resizer: "Resizer | Literal['auto']") -> "Resizer":
    """Return the resizer to use; one that is not installed ends the program."""
    from service.images.preprocessing import installed_resizers, usual_resizer

    if resizer == "auto":
        return usual_resizer()
    if resizer not in installed_resizers():
        fail(f"{resizer} is not installed; install it, or leave out --resizer")
    return resizer


def _fixed_fields(changes: list[str], weights: str | None) -> frozenset[str]:
    """Return the fields of the recipe that the command line sets."""
    fields = [change.partition("=")[0].strip() for change in changes]
    return frozenset(fields if weights is None else [*fields, "weights"])


def _chosen(name: str, changes: list[str], lengths: dict[str, float | None], weights: str | None) -> "Recipe":
    """Return the recipe as the command line changes it."""
    from training.recipes.catalog import chosen

    given = [f"{field}={length}" for field, length in lengths.items() if length is not None]
    try:
        recipe = chosen(name, [*changes, *given])
    except ValueError as error:
        fail(str(error))
    return recipe if weights is None else dataclasses.replace(recipe, weights=weights)


def _hardware(precision: str, compile: str, threads: int | None, *, deterministic: bool) -> tuple["World", "Hardware"]:
    """Return the processes of this run and what each computes on."""
    from training.hardware.devices import choose
    from training.hardware.process_group import join

    try:
        world = join()
        return world, choose(precision, compile, threads, processes=world.local_size, deterministic=deterministic)
    except ValueError as error:
        fail(str(error))


def train(recipe: "Recipe", options: "Options", hardware: "Hardware", world: "World", trial: str | None) -> None:
    """Train, or run the check of `training.runs.sanity_checks` that `trial` names; a failure ends the program."""
    from training.data.dataset import DataError
    from training.runs import sanity_checks as trials
    from training.runs.options import Interrupted, RunError
    from training.runs.progress import Progress
    from training.runs.run import run as train_to_the_end
    from training.trainer.loop import Diverged
    from training.weights.checkpoint import CheckpointError

    do = {"dry_run": trials.dry_run, "overfit_batch": trials.overfit_batch}[trial] if trial else train_to_the_end
    progress = Progress(is_quiet=not world.is_first)
    try:
        do(recipe, options, hardware, progress, world)
    except Interrupted as error:
        progress.close()
        _end_now(str(error))
    except (RunError, DataError, CheckpointError, Diverged) as error:
        fail(str(error))
    except OSError as error:
        fail(
            f"{error.filename or options.out}: {error.strerror}; "
            "earlier checkpoints are intact; repair it and add --resume"
        )
    finally:
        progress.close()
        world.leave()
    if world.is_first and trial is None:
        typer.echo(f"done: {options.out}; export it with: export-onnx --checkpoint {options.out}")


def _end_now(message: str) -> NoReturn:
    """End without waiting for other processes, or for threads that compute results without a use."""
    typer.echo(f"train-resnet: {message}", err=True)
    sys.stderr.flush()
    os._exit(1)
