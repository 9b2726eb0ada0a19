"""Classify the images of a folder or bucket on all machines of a Ray cluster, into Parquet files.

    python deploy/ray/classify_images.py s3://bucket/images s3://bucket/answers --model /models/everyday-resnet18-int8

The rows are those of `classify --out answers.parquet`; ids are paths below the folder. Each id has exactly one row: Ray
records the ids of each file that it has written, and the same command continues after the loss of a node or a stop.
Ids are filtered before images are read, so that a continued job reads no image twice.
"""

import json
import math
import os
import posixpath
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NoReturn

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # before Ray is imported

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import ray
import typer
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.data.checkpoint import CheckpointConfig

from resnet_service import Classification, Model, ResnetError
from service.cli.bulk_parquet import answers_schema
from service.cli.inputs import IMAGE_ENDINGS
from service.cli.options import DEFAULT_MAX_IMAGE_BYTES

_BATCH = 64  # images that an actor holds in memory
_READERS = 16  # threads of an actor that read
_TASKS = 2  # that read ids, and that write files, at a time
_RECORD = "_job.json"  # readers of Parquet folders skip names that begin with an underscore


class ImageIds(Datasource):  # type: ignore[misc]
    """The ids of images, in blocks of a fixed size. A block is what one task classifies and one file holds."""

    def __init__(self, ids: list[str], size: int) -> None:
        super().__init__()
        self._ids = ids
        self._size = size

    def estimate_inmemory_data_size(self) -> int:
        """Return the bytes of all ids."""
        return sum(map(len, self._ids))

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """Return a task for each block."""
        blocks = (self._ids[start : start + self._size] for start in range(0, len(self._ids), self._size))
        return [
            ReadTask(partial(_tables_of, block), BlockMetadata(len(block), sum(map(len, block)), None, None))
            for block in blocks
        ]


def _tables_of(ids: list[str]) -> list[pa.Table]:
    return [pa.table({"id": ids})]


class Classifier:
    """An actor: one loaded model, and the folder that it reads images from."""

    def __init__(self, images: str, model: str, top_k: int, threads: int, max_image_bytes: int) -> None:
        self._filesystem, self._folder = _opened(images)
        self._model = Model.load(model)
        self._top_k, self._threads, self._most_bytes = top_k, threads, max_image_bytes
        self._readers = ThreadPoolExecutor(_READERS)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a row for each id of a batch."""
        ids = batch["id"].to_pylist()
        contents = list(self._readers.map(self._read, ids))
        images = [content for content in contents if isinstance(content, bytes)]
        classified = iter(self._model.classify_many(images, top_k=self._top_k, threads=self._threads))
        answers = (next(classified) if isinstance(content, bytes) else content for content in contents)
        return pa.Table.from_pylist(list(map(_row, ids, answers)), answers_schema())

    def _read(self, name: str) -> bytes | ResnetError:
        """Return an image, or the problem of its file. Any other failure is of the storage, and ends the job."""
        try:
            with self._filesystem.open_input_stream(posixpath.join(self._folder, name)) as file:
                content: bytes = file.read(self._most_bytes + 1)
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            return ResnetError("The file cannot be read.", code="no_file")
        if len(content) > self._most_bytes:
            return ResnetError(f"An image may have at most {self._most_bytes:,} bytes.", code="too_large")
        return content


def _row(image_id: str, answer: Classification | ResnetError) -> dict[str, Any]:
    if isinstance(answer, ResnetError):
        if answer.code == "engine_failed":
            raise answer
        return {"id": image_id, "problem": {"code": answer.code, "detail": answer.detail}}
    model, predictions = _served_as(answer.model), list(map(asdict, answer.predictions))
    return {"id": image_id, "model": model, "predictions": predictions, "confident": answer.confident}


def _served_as(model: Any) -> str:
    return f"{model.name}:{model.version}"


def main(
    images: Annotated[str, typer.Argument(help="Folder or bucket that all nodes reach: /path or s3://…, gs://…")],
    out: Annotated[str, typer.Argument(help="Folder or bucket for the Parquet files, which all nodes reach.")],
    model: Annotated[str, typer.Option(help="Model file or folder, the same on all nodes.")],
    actors: Annotated[int, typer.Option(min=1, help="Most actors; each loads the model once.")] = 1,
    cpus: Annotated[float, typer.Option(min=0.1, help="CPUs of an actor, and its threads.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of an actor.")] = 0,
    images_per_file: Annotated[int, typer.Option(min=1, help="Images of a task and of a Parquet file.")] = 2000,
    top_k: Annotated[int, typer.Option(min=1, max=5, help="Labels of an image.")] = 5,
    max_image_bytes: Annotated[int, typer.Option(min=1, help="Largest image file.")] = DEFAULT_MAX_IMAGE_BYTES,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster; default: RAY_ADDRESS, else a new local one.")
    ] = None,
) -> None:
    """Classify all images below a folder or bucket that have no row yet."""
    images, out = _as_uri(images), _as_uri(out)
    _check_record(out, images, model, top_k)
    ids = _listed(images)
    ray.init(address)
    _warn_if_small(cpus)
    DataContext.get_current().checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=f"{out}.checkpoint", delete_checkpoint_on_success=False
    )
    # Reading ids and writing rows reserve no CPU: else actors that fill all nodes would keep them waiting forever.
    # Their number is limited instead, since Ray would start a process for each such task.
    free: dict[str, Any] = {"ray_remote_args": {"num_cpus": 0}, "concurrency": _TASKS}
    found = ray.data.read_datasource(ImageIds(ids, images_per_file), **free)
    rows = found.map_batches(
        Classifier,
        fn_constructor_args=(images, model, top_k, max(1, math.floor(cpus)), max_image_bytes),
        batch_size=_BATCH,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(min_size=1, max_size=actors),
        num_cpus=cpus,
        num_gpus=gpus,
    )
    rows.write_parquet(out, **free)
    _print_totals(out, len(ids))


def _as_uri(name: str) -> str:
    return name.rstrip("/") if "://" in name else Path(name).resolve().as_uri()


def _opened(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    filesystem, folder = pyarrow.fs.FileSystem.from_uri(uri)
    return filesystem, folder


def _listed(images: str) -> list[str]:
    """Return the ids of all images below a folder, in order."""
    filesystem, folder = _opened(images)
    try:
        ids = sorted(_images_below(filesystem, folder))
    except OSError as error:
        _fail(f"{images} cannot be listed: {error.strerror or error}; check the path and the permissions")
    return ids or _fail(f"{images} has no JPEG, PNG or WebP file; check the path")


def _images_below(filesystem: pyarrow.fs.FileSystem, folder: str) -> Iterator[str]:
    for found in filesystem.get_file_info(pyarrow.fs.FileSelector(folder, recursive=True)):
        name = posixpath.relpath(found.path, folder)
        is_hidden = any(part.startswith(".") for part in name.split("/"))
        is_image = posixpath.splitext(name)[1].lower() in IMAGE_ENDINGS
        if found.type is pyarrow.fs.FileType.File and is_image and not is_hidden:
            yield name


def _check_record(out: str, images: str, model: str, top_k: int) -> None:
    """Write what the rows of a folder come from, or end the job if it has rows of anything else."""
    try:
        info = Model.load(model).info
    except ResnetError as error:
        _fail(error.detail)
    record = {"images": images, "model": _served_as(info), "sha256": info.sha256, "top_k": top_k}
    filesystem, folder = _opened(out)
    filesystem.create_dir(folder, recursive=True)
    path = posixpath.join(folder, _RECORD)
    if filesystem.get_file_info(path).type is pyarrow.fs.FileType.NotFound:
        with filesystem.open_output_stream(path) as file:
            file.write(json.dumps(record, indent=1).encode())
        return
    with filesystem.open_input_stream(path) as file:
        before = json.loads(file.read())
    for name, value in record.items():
        if before.get(name) != value:
            _fail(f"{out} has rows with {name} {before.get(name)}, not {value}; write to another folder")


def _warn_if_small(cpus: float) -> None:
    total = ray.cluster_resources().get("CPU", 0)
    if total < cpus + 1:
        typer.echo(
            f"classify_images: the cluster has {total:g} CPUs, an actor and the filter of a continued job need "
            f"{cpus + 1:g}; the job waits until nodes join, or lower --cpus",
            err=True,
        )


def _print_totals(out: str, images: int) -> None:
    filesystem, folder = _opened(out)
    rows = pyarrow.dataset.dataset(folder, filesystem=filesystem, format="parquet", schema=answers_schema())
    problems = rows.count_rows(filter=pyarrow.dataset.field("problem").is_valid())
    typer.echo(f"classify_images: {images:,} images, {rows.count_rows():,} rows, {problems:,} with a problem", err=True)


def _fail(message: str) -> NoReturn:
    typer.echo(f"classify_images: {message}", err=True)
    raise SystemExit(1)


if __name__ == "__main__":
    typer.run(main)
