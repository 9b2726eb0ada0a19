"""The options of `classify`: their types, help texts and environment variables."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from service.inference.classifier import LARGEST_TOP_K
from service.settings import ENVIRONMENT_PREFIX, Settings


class Format(StrEnum):
    """The output format: a table for people, JSON for programs."""

    TABLE = "table"
    JSON = "json"


DEFAULT_MAX_IMAGE_BYTES: int = Settings.model_fields["max_image_bytes"].default
DEFAULT_MAX_PIXELS: int = Settings.model_fields["max_pixels"].default
DEFAULT_MAX_SIDE: int = Settings.model_fields["max_side"].default

Images = Annotated[
    list[str],
    typer.Argument(metavar="IMAGE...", help="Files, folders, patterns such as 'pets/**/*.jpg', or - for stdin."),
]
Models = Annotated[
    Path,
    typer.Option(help="Folder of models, or one model: its file or folder.", envvar=f"{ENVIRONMENT_PREFIX}MODELS"),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Model: NAME or NAME:VERSION. [default: the default model of serve-resnet]",
        envvar=f"{ENVIRONMENT_PREFIX}DEFAULT_MODEL",
    ),
]
Server = Annotated[str | None, typer.Option(metavar="URL", help="Use a running server instead of a model in --models.")]
ApiKey = Annotated[
    str | None, typer.Option(help="API key for a server that requires one.", envvar=f"{ENVIRONMENT_PREFIX}API_KEY")
]
Output = Annotated[Format, typer.Option("--format", help="`json` prints one object per file and line.")]
TopK = Annotated[int, typer.Option(min=1, max=LARGEST_TOP_K, help="Number of labels.")]
MaxImageBytes = Annotated[
    int,
    typer.Option(
        min=1,
        help="Largest file, in bytes; a server has its own limit.",
        envvar=f"{ENVIRONMENT_PREFIX}MAX_IMAGE_BYTES",
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option(
        min=1,
        help="Largest image, in pixels; a server has its own limit.",
        envvar=f"{ENVIRONMENT_PREFIX}MAX_PIXELS",
    ),
]
MaxSide = Annotated[
    int,
    typer.Option(
        min=1,
        help="Longest side, in pixels; a server has its own limit.",
        envvar=f"{ENVIRONMENT_PREFIX}MAX_SIDE",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Write a row for each image of one folder, list or tar archive: FILE.jsonl or FILE.parquet.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Keep the rows of --out and add the missing ones.")]
