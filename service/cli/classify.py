"""`classify IMAGE…`: the answers of POST /classify on the command line, without a server or from one."""

import contextlib
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.progress import track

from service.api.endpoints.responses import classification_as_json
from service.cli.bulk import BulkOptions, check_output, classify_into
from service.cli.bulk_inputs import BulkError
from service.cli.client import Client, ServerError
from service.cli.inputs import find_images, read_image
from service.engine.engine import EngineError
from service.errors import ServiceError
from service.images.limits import ImageLimits
from service.inference.classifier import LARGEST_TOP_K, Classifier
from service.inference.registry import load
from service.model_files.repository import ALL, ModelRepositoryError, choose_model, find_models, locate_models
from service.settings import ENVIRONMENT_PREFIX, Settings
from service.system.cores import available_cores

_BAR_WIDTH = 30
_MANY = 20  # images, from which on a bar shows how far it is
_REQUESTS_AT_ONCE = 8
_MOST_SENT_BYTES = 2**31  # a server says what it takes

Ask = Callable[[bytes], dict[str, Any]]


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
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE...", help="Files, folders, patterns such as 'pets/**/*.jpg', - for stdin."),
    ],
    models: Annotated[
        Path,
        typer.Option(help="Folder of models, or one model: its file or folder.", envvar=f"{ENVIRONMENT_PREFIX}MODELS"),
    ] = Path("models"),
    model: Annotated[
        str | None,
        typer.Option(
            help="Model to ask. [default: as serve-resnet chooses]", envvar=f"{ENVIRONMENT_PREFIX}DEFAULT_MODEL"
        ),
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask a running server, not a model in --models.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(help="For a server that wants one.", envvar=f"{ENVIRONMENT_PREFIX}API_KEY")
    ] = None,
    output: Annotated[
        Format, typer.Option("--format", help="`json` prints one object per file and line.")
    ] = Format.TABLE,
    top_k: Annotated[int, typer.Option(min=1, max=LARGEST_TOP_K, help="How many labels.")] = 5,
    max_image_bytes: Annotated[
        int,
        typer.Option(
            min=1,
            help="Largest file, in bytes; a server has its own limit.",
            envvar=f"{ENVIRONMENT_PREFIX}MAX_IMAGE_BYTES",
        ),
    ] = Settings.model_fields["max_image_bytes"].default,
    max_pixels: Annotated[
        int,
        typer.Option(
            min=1,
            help="Most pixels that are decoded; a server has its own limit.",
            envvar=f"{ENVIRONMENT_PREFIX}MAX_PIXELS",
        ),
    ] = Settings.model_fields["max_pixels"].default,
    max_side: Annotated[
        int,
        typer.Option(
            min=1,
            help="Longest side, in pixels; a server has its own limit.",
            envvar=f"{ENVIRONMENT_PREFIX}MAX_SIDE",
        ),
    ] = Settings.model_fields["max_side"].default,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a row for each image of one folder, list or tar: FILE.jsonl or .parquet."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Keep the rows of --out, and add what is missing.")] = False,
) -> None:
    """Say what each image shows. Exits with 1 if any file failed; the others are answered all the same."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    if out is not None or resume:
        bulk = BulkOptions(top_k, max_image_bytes, available_cores())
        _write_all(
            out, images, server, partial(_load, models, model, ImageLimits.of(max_pixels, max_side), None), bulk, resume
        )
        return
    names = list(find_images(images))
    try:
        if server is not None:
            with contextlib.closing(Client(server, api_key=api_key)) as client:
                ask = partial(client.classify, top_k=top_k, model=model)
                failed = _print_all(names, ask, _REQUESTS_AT_ONCE, _MOST_SENT_BYTES, output)
        else:
            ask = partial(_ask_model, _load(models, model, ImageLimits.of(max_pixels, max_side)), top_k)
            failed = _print_all(names, ask, available_cores(), max_image_bytes, output)
    except ServerError as error:
        _fail(str(error))
    raise SystemExit(1 if failed else 0)


def _write_all(
    out: Path | None,
    inputs: list[str],
    server: str | None,
    load_model: Callable[[], Classifier],
    options: BulkOptions,
    resume: bool,
) -> None:
    """Write a line for each image. Exits with 1 and one line if the input or the file cannot be used."""
    if out is None:
        _fail("--resume needs --out FILE.jsonl, the file to continue")
    if server is not None:
        _fail("--out needs a model of --models, not --server; leave out --server")
    if len(inputs) != 1:
        _fail(f"--out takes one folder, list of paths or tar archive, not {len(inputs)}; write the paths into a list")
    try:
        check_output(out)
        classify_into(out, inputs[0], load_model(), options, resume=resume)
    except BulkError as error:
        _fail(str(error))


def _print_all(names: list[str], ask: Ask, at_once: int, most_bytes: int, output: Format) -> int:
    """Print each file's answer; return how many failed. Raises ServerError."""
    failed = 0
    for name, answer in _with_bar(_answers(names, ask, at_once, most_bytes), len(names)):
        failed += "error" in answer
        _print_json(name, answer) if output is Format.JSON else _print_table(name, answer)
    return failed


def _ask_model(classifier: Classifier, top_k: int, content: bytes) -> dict[str, Any]:
    return classification_as_json(classifier.info, classifier.classify_now(content, top_k=top_k))


def _load(folder: Path, model: str | None, limits: ImageLimits, max_batch: int | None = 1) -> Classifier:
    try:
        name, colon, version = (model or "").partition(":")
        files = find_models(locate_models(folder), latest=ALL if colon else 1)
        chosen = choose_model(files, name or None, flag="--model").name
        found = {file.version: file for file in files if file.name == chosen}
        if colon and version not in found:
            _fail(f"{name} has no version {version!r}; there is: {', '.join(found)}")
        file = found[version] if colon else next(iter(found.values()))
        loaded = load(file, providers="auto", max_batch=max_batch, limits=limits)
        if not isinstance(loaded, Classifier):
            _fail(f"{file.path} has no model card, so nothing says what its labels are; export it with export-onnx")
        return loaded
    except (ModelRepositoryError, EngineError) as error:
        _fail(str(error))


def _answers(names: list[str], ask: Ask, at_once: int, most_bytes: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each file's answer, in order, while the next ones are worked on; few at a time, whatever their number."""

    def answer(name: str) -> dict[str, Any]:
        try:
            return ask(read_image(name, most_bytes))
        except ServiceError as error:
            return {"error": {"status": error.status, "code": error.code, "detail": error.message}}

    with ThreadPoolExecutor(at_once) as threads:
        begun: deque[tuple[str, Future[dict[str, Any]]]] = deque()
        for name in names:
            begun.append((name, threads.submit(answer, name)))
            if len(begun) > 2 * at_once:
                yield begun[0][0], begun.popleft()[1].result()
        while begun:
            yield begun[0][0], begun.popleft()[1].result()


def _with_bar(answers: Iterable[tuple[str, dict[str, Any]]], total: int) -> Iterable[tuple[str, dict[str, Any]]]:
    """Show on the terminal how far it is, below the answers if they are shown there, too."""
    if total < _MANY or not sys.stderr.isatty():
        return answers
    return track(answers, "classifying", total, console=Console(stderr=not sys.stdout.isatty()), transient=True)


def _print_json(file: str, answer: dict[str, Any]) -> None:
    name = os.fsencode(file).decode(errors="replace")  # JSON is UTF-8; a file's name may be any bytes
    typer.echo(orjson.dumps({"file": name, **answer}).decode())


def _print_table(file: str, answer: dict[str, Any]) -> None:
    name = _visible(file)
    if "error" in answer:
        typer.echo(f"{name}: {answer['error']['detail']}", err=True)
        return
    image = orjson.loads(orjson.dumps(answer["image"]))
    end = ", its end is missing" if image.get("truncated") else ""
    is_unsure = answer.get("confident") is False
    doubt = "  not sure" if is_unsure else ""
    typer.echo(f"{name}  ({image['format']}, {image['width']} x {image['height']}{end}){doubt}")
    predictions = answer["predictions"]
    width = max(len(best["label"]) for best in predictions)
    for best in predictions:
        bar = ("░" if is_unsure else "█") * round(_BAR_WIDTH * best["probability"])
        typer.echo(f"  {best['label']:<{width}}  {best['probability']:7.2%}  {bar}".rstrip())


def _visible(name: str) -> str:
    """Return a file's name without what a terminal would take for orders."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def _fail(message: str) -> NoReturn:
    typer.echo(f"classify: {message}", err=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
