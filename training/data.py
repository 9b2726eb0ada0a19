"""Pictures in folders, or in a tar of folders, packed once into a memory map of uint8 pixels.

The data itself may be read-only: the packed form lives in the user's cache folder, under the sizes and times of the
source's files. Pictures are decoded by the service's own code, so training and serving see the same pixels. What
cannot be decoded is skipped, counted and listed with its reason; too many, or a class left empty, and packing refuses.
"""

import contextlib
import csv
import errno
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.preprocess import Pixels, image_to_pixels
from training.class_folders import DataError, Listing, existing, find_classes, listed, strays

__all__ = [
    "DEFAULT_MAX_SKIPPED",
    "DataError",
    "Dataset",
    "load",
    "opened",
    "refuse_too_many_skipped",
    "stratified_hold_out",
    "write_skipped",
]

_PACK_VERSION = 1
_USUAL_INTERPOLATION = "bilinear"
DEFAULT_MAX_SKIPPED = 0.2


@dataclass(frozen=True, slots=True)
class Dataset:
    """Packed pictures: uint8 (N, size, size, 3) memory-mapped, labels int64 (N,), class names in label order."""

    name: str
    source: str
    classes: tuple[str, ...]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    fingerprint: str  # sha256 over class names, labels and pixels
    skipped: tuple[tuple[str, str], ...]  # file, reason

    def __len__(self) -> int:
        return len(self.labels)

    def facts(self) -> dict[str, Any]:
        """Return what a run records of its data."""
        return {
            "name": self.name,
            "source": self.source,
            "images": len(self),
            "skipped": len(self.skipped),
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True, slots=True)
class _Frame:
    """How much of a picture is kept, and how it is made smaller."""

    size: int  # pixels, each side
    shorter_side: int
    interpolation: str

    def __str__(self) -> str:
        resized = "" if self.shorter_side == self.size else f"-of-{self.shorter_side}"
        return f"{self.size}{resized}" + (
            "" if self.interpolation == _USUAL_INTERPOLATION else f"-{self.interpolation}"
        )

    def pixels(self, content: bytes) -> Pixels:
        crop = (self.size, self.size)
        return image_to_pixels(content, shorter_side=self.shorter_side, crop=crop, interpolation=self.interpolation)[0]


def load(
    source: Path,
    size: int,
    *,
    shorter_side: int | None = None,
    interpolation: str = _USUAL_INTERPOLATION,
    max_skipped: float = DEFAULT_MAX_SKIPPED,
    announce: Callable[[str], None] = lambda _line: None,
) -> Dataset:
    """Return the data set in a folder (or a tar) of class folders, with pictures of `size` x `size` pixels.

    The shorter side is resized to `shorter_side` (default: `size`) and the centre cut out. Packs at the first call,
    maps the packed file later.
    Raises DataError for a missing, empty or wrongly nested folder and for too many undecodable files.
    """
    given, source = source, existing(source)
    frame = _Frame(size, shorter_side or size, interpolation)
    packed = _cache_folder() / f"{_source_key(source)}-{frame}"
    if not (packed / "dataset.json").is_file():
        _pack(source, frame, max_skipped, packed, announce)
    facts = json.loads((packed / "dataset.json").read_text())
    dataset = Dataset(
        name=_name_of(source),
        source=str(given),
        classes=tuple(facts["classes"]),
        images=np.memmap(packed / "images.u8", np.uint8, "r", shape=(facts["images"], size, size, 3)),
        labels=np.load(packed / "labels.npy"),
        fingerprint=facts["fingerprint"],
        skipped=tuple((file, reason) for file, reason in facts["skipped"]),
    )
    refuse_too_many_skipped(dataset.classes, Counter(dataset.labels.tolist()), dataset.skipped, max_skipped)
    return dataset


@contextlib.contextmanager
def opened(source: Path) -> Iterator[tuple[dict[str, list[PurePosixPath]], Callable[[PurePosixPath], bytes]]]:
    """Open a folder (or a tar) of class folders: class name → files, in label order, and what reads a file's bytes.

    Raises DataError for a missing, empty or wrongly nested folder.
    """
    source = existing(source)
    with listed(source) as listing:
        yield find_classes(listing, source), listing.read


def write_skipped(skipped: Sequence[tuple[str, str]], path: Path) -> None:
    """List skipped files with their reasons, as CSV."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "reason"))
        rows.writerows(skipped)


def stratified_hold_out(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of `count` pictures, drawn with a seed, each class by its share; int64 (count,)."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    ranks = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        # Picture i of a class of n is drawn once the fraction (i + 0.5) / n of everything has been.
        ranks[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(np.argsort(ranks, kind="stable")[:count])


def _cache_folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "resnet-service" / "datasets"


def _name_of(source: Path) -> str:
    """Return the data set's name: cifar10 for cifar10-train.tar, pets for pets/train."""
    stem = source.name.removesuffix(".tar")
    if stem in ("train", "training", "val", "test"):
        stem = source.parent.name
    for ending in ("-train", "_train", "-training", "-test", "_test", "-val", "_val"):
        stem = stem.removesuffix(ending)
    return "".join(letter if letter.isalnum() else "-" for letter in stem.lower()).strip("-") or "pictures"


def _source_key(source: Path) -> str:
    """Return a key that changes when a file of the source is added, removed or rewritten."""
    digest = hashlib.sha256(f"{_PACK_VERSION}\n{source}\n".encode())
    for path in [source] if source.is_file() else sorted(source.rglob("*")):
        if path.is_file():
            facts = path.stat()
            digest.update(f"{path.relative_to(source)}\t{facts.st_size}\t{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _pack(source: Path, frame: _Frame, max_skipped: float, packed: Path, announce: Callable[[str], None]) -> None:
    """Decode every picture into a hidden folder beside `packed`, then give it its name in one step."""
    try:
        packed.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".packing-", dir=packed.parent, ignore_cleanup_errors=True) as folder:
            working = Path(folder) / "packed"
            working.mkdir()
            with listed(source) as listing:
                classes = find_classes(listing, source)
                announce(
                    f"packing {sum(map(len, classes.values())):,} files in {len(classes)} classes from {source.name}"
                )
                facts = _decode_all(listing, classes, frame, working, max_skipped)
            (working / "dataset.json").write_text(json.dumps(facts))
            try:
                working.rename(packed)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process packed the same meanwhile
                    raise
    except OSError as error:
        raise DataError(
            f"cannot pack the pictures into {packed.parent}: {os.strerror(error.errno or errno.EIO)}; "
            "free space there, or set XDG_CACHE_HOME to a folder on another disk"
        ) from None


def _decode_all(
    listing: Listing,
    classes: dict[str, list[PurePosixPath]],
    frame: _Frame,
    working: Path,
    max_skipped: float,
) -> dict[str, Any]:
    """Write images.u8 and labels.npy into `working` and return the facts for dataset.json."""
    digest = hashlib.sha256("\n".join(classes).encode())
    labels: list[int] = []
    skipped = [(str(path), "lies in no class folder") for path in strays(listing, classes)]
    with (working / "images.u8").open("wb") as images:
        for label, paths in enumerate(classes.values()):
            for path in paths:
                try:
                    pixels = frame.pixels(listing.read(path))
                except (ServiceError, OSError) as error:
                    skipped.append((str(path), error.message if isinstance(error, ServiceError) else "cannot be read"))
                    continue
                content = pixels.tobytes()
                images.write(content)
                digest.update(content)
                labels.append(label)
    refuse_too_many_skipped(tuple(classes), Counter(labels), skipped, max_skipped)
    np.save(working / "labels.npy", np.array(labels, np.int64))
    digest.update(np.array(labels, np.int64).tobytes())
    return {
        "classes": list(classes),
        "images": len(labels),
        "fingerprint": digest.hexdigest(),
        "skipped": skipped,
    }


def refuse_too_many_skipped(
    classes: Sequence[str], counts: Counter[int], skipped: Sequence[tuple[str, str]], max_skipped: float
) -> None:
    """Raise DataError if a class has no picture (counts by label), or too large a share cannot be decoded."""
    total = counts.total() + len(skipped)
    example = f"; the first is {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
    for label, name in enumerate(classes):
        if not counts[label]:
            raise DataError(f"no picture of class {name!r} can be decoded{example}")
    if len(skipped) > max_skipped * total:
        raise DataError(
            f"{len(skipped)} of {total} files cannot be used, more than --max-skipped {max_skipped:g} allows{example}"
        )
