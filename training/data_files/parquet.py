"""Parquet files with the bytes and the label of an image in each row, as Hugging Face data sets have them.

A column of binary values, or of structures with `bytes`, is the images. Files whose names say that they are of a part,
such as `train-00000-of-00002.parquet`, are in a folder of that part.
"""

import importlib.util
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from training.data_files.class_folders import IMAGE_SUFFIXES
from training.data_files.listing import DataError, Listing
from training.data_files.part_names import purpose_in
from training.data_files.tables import LABEL_COLUMNS, class_path

if TYPE_CHECKING:
    import pyarrow as pa

SUFFIX = ".parquet"
_ROWS_AT_A_TIME = 256
_BEGINNINGS = {b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp"}


def images_in(listing: Listing) -> Iterator[tuple[PurePosixPath, bytes]] | None:
    """Return path and bytes of the image of each row; None for other data.

    Raises DataError without pyarrow; reading raises it for a file without such columns.
    """
    files = [path for path in listing.files if path.suffix == SUFFIX]
    if not files or any(path.suffix.lower() in IMAGE_SUFFIXES for path in listing.files):
        return None
    if importlib.util.find_spec("pyarrow") is None:
        raise DataError(
            f"{files[0]} needs pyarrow; install this project with the extra parquet, or pip install pyarrow"
        )
    return (image for path in files for image in _rows(path, listing.read(path)))


def _rows(path: PurePosixPath, content: bytes) -> Iterator[tuple[PurePosixPath, bytes]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(io.BytesIO(content)) as file:
            image, label = _columns(path, file.schema_arrow)
            names = _class_names(file.schema_arrow, label)
            folder = path.parent / (purpose_in(path.stem) or "")
            index = 0
            for batch in file.iter_batches(_ROWS_AT_A_TIME, columns=[image, label]):
                for row in batch.to_pylist():
                    encoded = _bytes_of(row[image])
                    name = f"{path.stem}-{index:06}{_suffix(encoded)}"
                    yield folder / class_path(_name(row[label], names), name), encoded
                    index += 1
    except (pa.ArrowException, OSError):
        raise DataError(f"{path} is no Parquet file that can be read; download it again") from None


def _columns(path: PurePosixPath, schema: "pa.Schema") -> tuple[str, str]:
    """Return the names of the columns of images and of labels. Raises DataError."""
    images = [field.name for field in schema if _holds_bytes(field.type)]
    labels = [name for name in LABEL_COLUMNS if name in schema.names]
    if not images or not labels:
        raise DataError(
            f"{path} has the columns {', '.join(map(repr, schema.names))}; an image column needs the bytes of the "
            "files, and a label column the name label"
        )
    return images[0], labels[0]


def _holds_bytes(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(schema: "pa.Schema", label: str) -> list[str]:
    """Return the class names that Hugging Face's `datasets` leaves in a file, or none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return list(map(str, features[label]["names"]))
    except (KeyError, ValueError, TypeError):
        return []


def _name(label: object, names: list[str]) -> str:
    if isinstance(label, int) and 0 <= label < len(names):
        return names[label]
    return "" if label is None else str(label)


def _bytes_of(value: bytes | Mapping[str, Any] | None) -> bytes:
    found = value.get("bytes") if isinstance(value, Mapping) else value
    return found or b""


def _suffix(encoded: bytes) -> str:
    return next((suffix for start, suffix in _BEGINNINGS.items() if encoded.startswith(start)), "")
