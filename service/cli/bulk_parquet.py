"""`classify --out answers.parquet`: the rows of a bulk classification as one Parquet file.

A Parquet file is of use only once its end is written, and a killed run would leave none. The rows therefore go to a
JSON Lines file beside it, with all that a resumed run needs. At the end they become the Parquet file, in row groups of
constant memory, under a temporary name; the file that is complete and on the disk then gets its own name.
"""

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from service.cli.bulk_inputs import BulkError

ENDING = ".parquet"
_EXTRA = "parquet"
_JOURNAL_ENDING = ".partial.jsonl"
_GROUP_BYTES = 1024 * 1024  # of lines: about 4,000 rows with five labels
_ROWS_AT_ONCE = 4096


def is_parquet(path: Path) -> bool:
    """Whether answers for this file are written as Parquet."""
    return path.suffix.lower() == ENDING


def check_installed(path: Path) -> None:
    """Raise BulkError unless pyarrow is installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise BulkError(
            f"pyarrow is not installed, so {path} cannot be written; install this project with the extra {_EXTRA}, or "
            "name a file that ends in .jsonl"
        )


def open_journal(path: Path, *, resume: bool) -> Path:
    """Return the JSON Lines file that holds the rows until the Parquet file is written. Raises BulkError.

    To continue a Parquet file that is complete, its rows become such a file again.
    """
    journal = path.with_name(path.name + _JOURNAL_ENDING)
    if path.exists():
        if not resume:
            raise BulkError(f"{path} exists; continue it with --resume, or write to another file")
        if not journal.exists():
            with _failing_in_one_line(path), _renamed_when_complete(journal) as unfinished:
                unfinished.write_bytes(b"")
                with unfinished.open("ab") as file:
                    file.writelines(_lines_of(path))
    return journal


def write_parquet(journal: Path, path: Path) -> None:
    """Write the rows of a JSON Lines file as Parquet, and remove that file. Raises BulkError."""
    import pyarrow as pa
    import pyarrow.json as pa_json
    import pyarrow.parquet as pq

    schema = answers_schema()
    with (
        _failing_in_one_line(path),
        _renamed_when_complete(path) as unfinished,
        pq.ParquetWriter(unfinished, schema, compression="zstd") as writer,
    ):
        if journal.stat().st_size:
            reading = pa_json.ReadOptions(use_threads=False, block_size=_GROUP_BYTES)
            parsing = pa_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
            for batch in pa_json.open_json(journal, read_options=reading, parse_options=parsing):
                writer.write_table(pa.Table.from_batches([batch], schema))
    journal.unlink()


def answers_schema() -> Any:
    """Return the pyarrow.Schema of the rows."""
    import pyarrow as pa

    prediction = pa.struct([("label", pa.string()), ("index", pa.int32()), ("probability", pa.float64())])
    problem = pa.struct([("code", pa.string()), ("detail", pa.string())])
    columns = [("model", pa.string()), ("predictions", pa.list_(prediction))]
    return pa.schema([("id", pa.string()), *columns, ("confident", pa.bool_()), ("problem", problem)])


def _lines_of(path: Path) -> Iterator[bytes]:
    """Yield the rows of a Parquet file as JSON Lines. Raises BulkError if they are not of this command."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        if not file.schema_arrow.equals(answers_schema()):
            raise BulkError(f"{path} has other columns than this command writes; write to another file")
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                names = ("id", "model", "predictions", "confident") if row["problem"] is None else ("id", "problem")
                yield orjson.dumps({name: row[name] for name in names}, option=orjson.OPT_APPEND_NEWLINE)


@contextlib.contextmanager
def _renamed_when_complete(path: Path) -> Iterator[Path]:
    """Give the path of a file to write, which gets its own name once it is complete and on the disk."""
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        yield unfinished
        _sync(unfinished)
        unfinished.replace(path)
        _sync(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextlib.contextmanager
def _failing_in_one_line(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except pa.ArrowException as error:
        reason = " ".join(str(error).split())
        raise BulkError(f"{path} cannot be read or written as Parquet: {reason}; write to another file") from None
    except OSError as error:
        raise BulkError(
            f"{path} cannot be written: {error.strerror or type(error).__name__}; check the folder and disk"
        ) from None
