"""`train-resnet convert-tiny-imagenet`: a published data set as class folders."""

from pathlib import Path
from typing import Annotated

import typer

from training.cli.failure import fail


def convert_tiny_imagenet(
    source: Annotated[
        Path,
        typer.Argument(help="tiny-imagenet-200.zip, its unpacked folder, or a bare git directory that contains it."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder for the two tars.")],
) -> None:
    """Convert Tiny ImageNet 200 to two tars of class folders, for the everyday recipes."""
    from training.data_files.listing import DataError
    from training.data_files.tiny_imagenet import convert

    try:
        counts = convert(source, out)
    except DataError as error:
        fail(str(error))
    for name, images in counts.items():
        typer.echo(f"{out / name}: {images:,} images")
