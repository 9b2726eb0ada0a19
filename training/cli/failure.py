"""How a command of `train-resnet` fails: one line on standard error, exit status 1, no traceback."""

from typing import NoReturn

import typer


def fail(message: str) -> NoReturn:
    """End the command with a message, which names what is wrong and what to do."""
    typer.echo(f"train-resnet: {message}", err=True)
    raise typer.Exit(1)
