"""`classify FILE…`: the answers of POST /classify on the command line, without a server."""

import logging
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer

from service.api.answer import classification_as_json
from service.classifier import LARGEST_TOP_K, Classifier
from service.engine import EngineError
from service.errors import BadRequest, ServiceError, image_too_large
from service.registry import RegistryError, choose_model, find_models, load
from service.settings import ENVIRONMENT_PREFIX, Settings

_BAR_WIDTH = 30


class Format(StrEnum):
    """How answers are printed: for people, or for programs."""

    TABLE = "table"
    JSON = "json"


def main() -> None:
    """Run the command."""
    command = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    command.command()(classify)
    command()


def classify(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="JPEG, PNG or WebP files.")],
    models: Annotated[Path, typer.Option(help="Folder of models.", envvar=f"{ENVIRONMENT_PREFIX}MODELS")] = Path(
        "models"
    ),
    model: Annotated[
        str | None,
        typer.Option(
            help="Model to ask. [default: as serve-resnet chooses]", envvar=f"{ENVIRONMENT_PREFIX}DEFAULT_MODEL"
        ),
    ] = None,
    output: Annotated[
        Format, typer.Option("--format", help="`json` prints one object per file and line.")
    ] = Format.TABLE,
    top_k: Annotated[int, typer.Option(min=1, max=LARGEST_TOP_K, help="How many labels.")] = 5,
) -> None:
    """Say what each picture shows. Exits with 1 if any file failed; the others are answered all the same."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    classifier = _load(models, model)
    failed = 0
    for file, answer in _answers(classifier, files, top_k):
        failed += "error" in answer
        _print_json(file, answer) if output is Format.JSON else _print_table(file, answer)
    raise SystemExit(1 if failed else 0)


def _load(folder: Path, model: str | None) -> Classifier:
    try:
        files = {file.name: file for file in find_models(folder)}
        name, colon, version = (model or "").partition(":")
        file = files[choose_model(list(files.values()), name or None, flag="--model")]
        if colon and version != file.version:
            _fail(f"{name} has no version {version!r} that is served; there is: {file.version}")
        return load(file, providers="auto", max_batch=1)
    except (RegistryError, EngineError) as error:
        _fail(str(error))


def _answers(classifier: Classifier, files: list[Path], top_k: int) -> Iterator[tuple[Path, dict[str, Any]]]:
    for file in files:
        try:
            classification = classifier.classify_now(_read(file), top_k=top_k)
            yield file, classification_as_json(classifier.info, classification)
        except ServiceError as error:
            yield file, {"error": {"status": error.status, "code": error.code, "detail": error.message}}


def _read(file: Path) -> bytes:
    most_bytes = Settings.model_fields["max_image_bytes"].default
    try:
        with file.open("rb") as opened:
            content = opened.read(most_bytes + 1)
    except OSError as error:
        reason = "There is no such file." if isinstance(error, FileNotFoundError) else "The file cannot be read."
        raise BadRequest(reason, code="no_file") from None
    if len(content) > most_bytes:
        raise image_too_large(most_bytes)
    if not content:
        raise BadRequest("The file is empty.", code="no_file")
    return content


def _print_json(file: Path, answer: dict[str, Any]) -> None:
    typer.echo(orjson.dumps({"file": str(file), **answer}))


def _print_table(file: Path, answer: dict[str, Any]) -> None:
    if "error" in answer:
        typer.echo(f"{file}: {answer['error']['detail']}", err=True)
        return
    image = answer["image"]
    typer.echo(f"{file}  ({image.format}, {image.width} x {image.height})")
    predictions = answer["predictions"]
    width = max(len(best["label"]) for best in predictions)
    for best in predictions:
        bar = "█" * round(_BAR_WIDTH * best["probability"])
        typer.echo(f"  {best['label']:<{width}}  {best['probability']:7.2%}  {bar}".rstrip())


def _fail(message: str) -> NoReturn:
    typer.echo(f"classify: {message}", err=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
