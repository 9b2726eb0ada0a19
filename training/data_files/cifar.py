"""The original archives of CIFAR-10 and CIFAR-100, in their Python and binary versions, as images in class folders.

The Python version consists of pickles. The unpickler accepts only numpy's arrays, so that a file of unknown origin
cannot run code.
"""

import io
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data_files.listing import DataError, Listing
from training.data_files.tables import class_path

_SIDE, _PIXELS = 32, 3 * 32 * 32
_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


@dataclass(frozen=True, slots=True)
class _Version:
    """The files of one version, by their names."""

    names: str  # the file of the class names
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int = 0  # before each image of a binary version, of which the last is the class; 0: pickles

    @property
    def files(self) -> set[str]:
        return {self.names, *self.train, *self.test}


_FIVE = range(1, 6)
_VERSIONS = (
    _Version("batches.meta", tuple(f"data_batch_{part}" for part in _FIVE), ("test_batch",)),
    _Version("batches.meta.txt", tuple(f"data_batch_{part}.bin" for part in _FIVE), ("test_batch.bin",), 1),
    _Version("meta", ("train",), ("test",)),
    _Version("fine_label_names.txt", ("train.bin",), ("test.bin",), 2),
)
MARKS = frozenset(version.names for version in _VERSIONS)


def images_in(listing: Listing) -> Iterator[tuple[PurePosixPath, bytes]] | None:
    """Return path and PNG of each image of the archives, under `train` and `test`; None for other data.

    Reading raises DataError for a damaged file.
    """
    files = set(listing.files)
    for version in _VERSIONS:
        for path in listing.files:
            if path.name == version.names and files >= {path.parent / name for name in version.files}:
                return _images(listing, path.parent, version)
    return None


def _images(listing: Listing, folder: PurePosixPath, version: _Version) -> Iterator[tuple[PurePosixPath, bytes]]:
    try:
        names = _class_names(listing.read(folder / version.names), version)
        for part, batches in (("train", version.train), ("test", version.test)):
            for batch in batches:
                labels, pixels = _batch(listing.read(folder / batch), version)
                for index, (label, image) in enumerate(zip(labels, pixels, strict=True)):
                    yield folder / class_path(names[label], f"{batch}-{index:05}.png", part), _png(image)
    except (pickle.UnpicklingError, EOFError, KeyError, IndexError, ValueError, TypeError, AttributeError):
        raise DataError(f"{folder} is a damaged copy of CIFAR; download it again") from None


def _class_names(content: bytes, version: _Version) -> list[str]:
    if version.label_bytes:
        return content.decode().split()
    found = _unpickled(content)
    names = found.get(b"label_names") or found[b"fine_label_names"]
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _batch(content: bytes, version: _Version) -> tuple[Sequence[int], NDArray[np.uint8]]:
    """Return labels and images, uint8 (N, 3072): the red, then the green, then the blue pixels."""
    if version.label_bytes:
        rows = np.frombuffer(content, np.uint8).reshape(-1, version.label_bytes + _PIXELS)
        return rows[:, version.label_bytes - 1].tolist(), rows[:, version.label_bytes :]
    found = _unpickled(content)
    labels = found[b"labels"] if b"labels" in found else found[b"fine_labels"]
    return list(labels), np.asarray(found[b"data"], np.uint8)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    image = np.ascontiguousarray(pixels.reshape(3, _SIDE, _SIDE).transpose(1, 2, 0))
    Image.fromarray(image).save(content, "PNG", compress_level=1)
    return content.getvalue()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of CIFAR")
        return super().find_class(module, name)


def _unpickled(content: bytes) -> dict[bytes, Any]:
    found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    return {key.encode() if isinstance(key, str) else key: value for key, value in found.items()}
