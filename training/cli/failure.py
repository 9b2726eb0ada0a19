"""The failure of a command of `train-resnet`: one line on standard error, exit status 1, no traceback."""

from typing import NoReturn

import typer


def fail(message: str) -> NoReturn:
    """End the command with a message that names the fault and the next step."""
    typer.echo(f"train-resnet: {message}", err=True)
    raise typer.Exit(1)
