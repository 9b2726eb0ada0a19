"""Tables of image files and their labels: CSV, TSV and JSON lines, also as the metadata of a Hugging Face image folder.

A table becomes class folders: the file `a.jpg` with the label `cat` is `cat/a.jpg`, and `train/cat/a.jpg` if a column
or the first folder of its path says that it is of the training part.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from training.data_files.listing import DataError, Listing, Place, of_places, renamed
from training.data_files.part_names import purpose_of

SUFFIXES = frozenset((".csv", ".tsv", ".jsonl"))
METADATA = frozenset(("metadata.csv", "metadata.jsonl"))  # of Hugging Face, beside the images
_FILE_COLUMNS = [
    "file_name",
    "filename",
    "file",
    "path",
    "filepath",
    "filepaths",
    "file_path",
    "image",
    "image_path",
    "image_file",
    "image_name",
    "img",
    "img_path",
]
LABEL_COLUMNS = [
    "label",
    "labels",
    "class",
    "class_name",
    "classname",
    "category",
    "target",
    "fine_label",
    "coarse_label",
]
_PART_COLUMNS = ["split", "subset", "partition", "part", "set"]


@dataclass(frozen=True, slots=True)
class _Row:
    file: PurePosixPath
    label: str
    part: str | None

    def path(self) -> PurePosixPath:
        """Return the path of the image in class folders."""
        parts = [part for part in self.file.parts if part not in ("/", "..")]
        part = self.part
        if part is None and len(parts) > 1 and purpose_of(parts[0]):
            part, *parts = parts
        return class_path(self.label, PurePosixPath(*parts), part)


def class_path(label: str, file: PurePosixPath | str, part: str | None = None) -> PurePosixPath:
    """Return the path of an image in the folder of its class, or outside all of them if it has no label."""
    folder = label.strip().replace("/", "-")
    return PurePosixPath(part or "", folder, file) if folder else PurePosixPath(PurePosixPath(file).name)


def list_table(table: Path) -> Listing:
    """Return the images of a table, whose paths are relative to its folder. Raises DataError for unusable tables."""
    places = {path: Place(f"{table.parent / file}") for path, file in _files(table).items()}
    return of_places(places)


def files_of(table: Path) -> list[Path]:
    """Return the files that a table names. Raises DataError."""
    return [table.parent / file for file in _files(table).values()]


def _files(table: Path) -> dict[PurePosixPath, PurePosixPath]:
    rows = _rows(_records(table.read_bytes(), table.name), table)
    if rows and not any((table.parent / row.file).is_file() for row in rows):
        raise DataError(
            f"{table} names {str(rows[0].file)!r}, and none of its files is in {table.parent}; write paths relative to "
            "the table"
        )
    return {row.path(): row.file for row in rows}


def with_metadata(listing: Listing) -> Listing | None:
    """Return the files with the labels of the metadata files beside them; None where there are no such labels."""
    tables = [path for path in listing.files if path.name in METADATA]
    new: dict[PurePosixPath, PurePosixPath] = {}
    for table in tables:
        records = _records(listing.read(table), table.name)
        if records and _column(records[0], LABEL_COLUMNS) and _column(records[0], _FILE_COLUMNS):
            rows = _rows(records, Path(table))
            new |= {table.parent / row.path(): table.parent / row.file for row in rows}
    if not new:
        return None
    named = {*new.values(), *tables}
    return renamed(listing, new | {path: path for path in listing.files if path not in named})


def _records(content: bytes, name: str) -> list[dict[str, Any]]:
    """Return the rows of a table by column. Raises DataError for one that cannot be read."""
    try:
        text = content.decode("utf-8-sig")
        if name.endswith(".jsonl"):
            return [dict(json.loads(line)) for line in text.splitlines() if line.strip()]
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        return list(csv.DictReader(io.StringIO(text), delimiter=delimiter))
    except (ValueError, TypeError, csv.Error):
        raise DataError(f"{name} is no readable table in UTF-8; save it as CSV with a line of column names") from None


def _column(record: dict[str, Any], names: Sequence[str]) -> str | None:
    known = {str(name).strip().lower(): name for name in record}
    return next((known[name] for name in names if name in known), None)


def _rows(records: Sequence[dict[str, Any]], table: Path) -> list[_Row]:
    """Return the rows of a table. Raises DataError where a column is missing."""
    if not records:
        raise DataError(f"{table} has no rows; write one for each image, below a line of column names")
    file, label = (_column(records[0], names) for names in (_FILE_COLUMNS, LABEL_COLUMNS))
    if file is None or label is None:
        raise DataError(
            f"{table} has the columns {', '.join(map(repr, records[0]))}; name one file_name, with the paths of the "
            "images, and one label"
        )
    part = _column(records[0], _PART_COLUMNS)
    return list(_each(records, file, label, part))


def _each(records: Iterable[dict[str, Any]], file: str, label: str, part: str | None) -> Iterator[_Row]:
    for record in records:
        path, name, split = (_text(record.get(column)) for column in (file, label, part or ""))
        if path:
            yield _Row(PurePosixPath(path.replace("\\", "/")), name, split if purpose_of(split) else None)


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()
