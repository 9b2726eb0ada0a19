"""`train-resnet`: run a recipe, list the recipes, count costs, measure and report runs.

Slow imports (torch, matplotlib) stay inside the commands, so that `--help` answers at once.
"""

import typer

from training.cli.data import convert_tiny_imagenet
from training.cli.grow import grow
from training.cli.probes import initial_signals, loss_surface
from training.cli.references import cost, recipes
from training.cli.results import archive, evaluate, report
from training.cli.run_command import run

main = typer.Typer(
    name="train-resnet",
    help="Train residual networks of the paper, also on your own classes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in (
    run,
    recipes,
    cost,
    convert_tiny_imagenet,
    grow,
    archive,
    report,
    evaluate,
    initial_signals,
    loss_surface,
):
    main.command(_command.__name__.replace("_", "-"))(_command)


def start() -> None:
    """Run the command line; a missing package is reported in one line."""
    try:
        main()
    except ModuleNotFoundError as error:
        typer.echo(
            f"train-resnet: {error.name} is not installed; install this project with the extra train: make install",
            err=True,
        )
        raise SystemExit(1) from None
