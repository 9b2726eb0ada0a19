"""`classify IMAGE…`: POST /classify on the command line, with a local model or a running server."""

import contextlib
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.progress import track

from service.api.endpoints.responses import classification_as_json
from service.api.parsing.parameters import DEFAULT_TOP_K
from service.cli import options
from service.cli.bulk import BulkOptions, check_output, classify_into
from service.cli.bulk_inputs import BulkError
from service.cli.client import Client, ServerError
from service.cli.inputs import find_images, read_image
from service.engine.engine import EngineError
from service.errors import ServiceError
from service.images.limits import ImageLimits
from service.inference.classifier import Classifier
from service.inference.registry import load
from service.model_files.repository import ALL, ModelRepositoryError
from service.model_files.serving_set import choose_model, find_models, locate_models
from service.system.cores import available_cores

_BAR_WIDTH = 30
_MANY = 20  # images; from this number on, a progress bar is shown
_REQUESTS_AT_ONCE = 8
_MOST_SENT_BYTES = 2**31  # the server has the limit that counts

Ask = Callable[[bytes], dict[str, Any]]


def main() -> None:
    """Run the command."""
    command = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    command.command()(classify)
    command()


def classify(
    images: options.Images,
    models: options.Models = Path("models"),
    model: options.Model = None,
    server: options.Server = None,
    api_key: options.ApiKey = None,
    output: options.Output = options.Format.TABLE,
    top_k: options.TopK = DEFAULT_TOP_K,
    max_image_bytes: options.MaxImageBytes = options.DEFAULT_MAX_IMAGE_BYTES,
    max_pixels: options.MaxPixels = options.DEFAULT_MAX_PIXELS,
    max_side: options.MaxSide = options.DEFAULT_MAX_SIDE,
    out: options.Out = None,
    resume: options.Resume = False,
) -> None:
    """Print the labels of images. Exits with 1 if any file failed, after all other files are classified."""
    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(message)s")
    load_model = partial(_load, models, model, ImageLimits.of(max_pixels, max_side))
    if out is not None or resume:
        bulk = BulkOptions(top_k, max_image_bytes, available_cores())
        _write_all(out, images, server, partial(load_model, None), bulk, resume)
        return
    names = list(find_images(images))
    try:
        if server is not None:
            with contextlib.closing(Client(server, api_key=api_key)) as client:
                ask = partial(client.classify, top_k=top_k, model=model)
                failed = _print_all(names, ask, _REQUESTS_AT_ONCE, _MOST_SENT_BYTES, output)
        else:
            ask = partial(_ask_model, load_model(), top_k)
            failed = _print_all(names, ask, available_cores(), max_image_bytes, output)
    except ServerError as error:
        _fail(str(error))
    raise SystemExit(1 if failed else 0)


def _write_all(
    out: Path | None,
    inputs: list[str],
    server: str | None,
    load_model: Callable[[], Classifier],
    bulk: BulkOptions,
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
        classify_into(out, inputs[0], load_model(), bulk, resume=resume)
    except BulkError as error:
        _fail(str(error))


def _print_all(names: list[str], ask: Ask, at_once: int, most_bytes: int, output: options.Format) -> int:
    """Print each file's answer; return how many failed. Raises ServerError."""
    failed = 0
    for name, answer in _with_bar(_answers(names, ask, at_once, most_bytes), len(names)):
        failed += "error" in answer
        _print_json(name, answer) if output is options.Format.JSON else _print_table(name, answer)
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
            _fail(f"{file.path} has no model card and so no labels; export it with export-onnx")
        return loaded
    except (ModelRepositoryError, EngineError) as error:
        _fail(str(error))


def _answers(names: list[str], ask: Ask, at_once: int, most_bytes: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each file's answer, in order. At most three answers a thread are computed or stored at a time."""

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
    """Show a progress bar on the terminal, below the answers if they are printed there."""
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
    """Return a file's name with control characters escaped, which a terminal would interpret."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name)


def _fail(message: str) -> NoReturn:
    typer.echo(f"classify: {message}", err=True)
    raise SystemExit(1)


if __name__ == "__main__":
    main()
