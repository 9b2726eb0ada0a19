"""Images in folders, or in a tar of folders: labels, class names, and pixels as testing sees them.

What fits is packed once into a memory map of uint8 pixels; what is too big is looked through once and then decoded
whenever it is needed. The data itself may be read-only: both leave what they found in the user's cache folder, under
the sizes and times of the source's files. What cannot be decoded is skipped, counted and listed with its reason; too
many, or a class left empty, and loading refuses.
"""

import contextlib
import csv
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.images.preprocessing import PILLOW
from service.system.cache import cache_root
from service.system.cores import available_cores
from training.data.crops import CropSpec
from training.data.decoder_pool import Decoders
from training.data.image_arrays import Chosen, Images, Streamed
from training.data.memory_budget import too_big
from training.data.packing import (
    DIGESTS,
    FACTS,
    LABELS,
    OF_FILES,
    PIXELS,
    look_through,
    pack,
    places_of,
    refuse_too_many_skipped,
)
from training.data_files.class_folders import find_classes, refuse_lack_of_classes
from training.data_files.listing import DataError, Place
from training.data_files.part_names import purpose_of
from training.data_files.sources import existing, listed, source_key

__all__ = [
    "DEFAULT_MAX_SKIPPED",
    "DataError",
    "Dataset",
    "load",
    "opened",
    "reading_of",
    "refuse_too_many_skipped",
    "stratified_hold_out",
    "write_skipped",
]

Reading = Literal["packed", "streamed"]
_USUAL_INTERPOLATION = "bilinear"
_SUFFIXES = (".gz", ".tgz", ".tar", ".zip", ".parquet", ".csv", ".tsv", ".jsonl")  # not part of a data set's name
_ENDINGS = (
    "-train",
    "_train",
    "-training",
    "-test",
    "_test",
    "-val",
    "_val",
    "-python",
    "-binary",
    "-batches-py",
    "-batches-bin",
)
DEFAULT_MAX_SKIPPED = 0.2  # share of undecodable files


@dataclass(frozen=True, slots=True)
class Dataset:
    """Images as testing sees them: uint8 (N, size, size, 3), labels int64 (N,), class names in label order."""

    name: str
    source: str
    classes: tuple[str, ...]
    images: Images
    labels: NDArray[np.int64]
    fingerprint: str  # sha256 over class names, labels and pixels; streamed: over the files' names and sizes
    skipped: tuple[tuple[str, str], ...]  # file, reason
    digests: NDArray[np.uint64]  # of the files' bytes (N,): equal files have equal ones

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def reading(self) -> Reading:
        """Whether the pixels are packed, or decoded each time."""
        return reading_of(self.fingerprint)

    def chosen(self, indices: NDArray[np.int64]) -> Images:
        """Return the images at these indices, uint8 (n, H, W, 3), in this order; each is read at its first access."""
        return Chosen(self.images, indices)

    def places(self) -> Sequence[Place]:
        """Return where the file of each image is, in their order. Raises DataError for a compressed tar."""
        if isinstance(self.images, Streamed):
            return self.images.places
        return _used_places(existing(Path(self.source)), self.skipped)

    def facts(self) -> dict[str, Any]:
        """Return what a run records of its data."""
        return {
            "name": self.name,
            "source": self.source,
            "images": len(self),
            "skipped": len(self.skipped),
            "fingerprint": self.fingerprint,
            "reading": self.reading,
        }


def reading_of(fingerprint: str) -> Reading:
    """Return how the data set with this fingerprint was read."""
    return "streamed" if fingerprint.startswith(OF_FILES) else "packed"


def load(
    source: Path,
    crop: CropSpec,
    *,
    max_skipped: float = DEFAULT_MAX_SKIPPED,
    announce: Callable[[str], None] = lambda _line: None,
    reading: Reading | None = None,
    decoders: Decoders | None = None,
    processes: int = 1,
    agree: Callable[[Reading], Reading] = lambda mine: mine,
    least_classes: int = 2,
) -> Dataset:
    """Return a data set (`training.data_files.sources`), with the centres of the images as `crop` has them.

    Packs or looks through at the first call. Without `reading` the sizes decide, where `processes` share the memory of
    this machine and `agree` makes all of a run decide alike.
    Raises DataError for a missing, empty or wrongly nested folder and for too many undecodable files.
    """
    given, source = source, existing(source)
    cache = cache_root() / "datasets" / source_key(source)
    reading = reading or agree(_choose_reading(source, crop, cache, processes, announce))
    target = _target(cache, crop, reading)
    if reading == "packed":
        decoders = None
        pack(source, target, crop, max_skipped, announce, least_classes)
    else:
        decoders = decoders or Decoders(available_cores())
        look_through(source, target, crop, max_skipped, announce, least_classes, decoders)
    dataset = _found(target, str(given), source, crop, decoders)
    refuse_lack_of_classes(dataset.classes, source, least_classes)
    refuse_too_many_skipped(dataset.classes, Counter(dataset.labels.tolist()), dataset.skipped, max_skipped)
    return dataset


def _found(target: Path, given: str, source: Path, crop: CropSpec, decoders: Decoders | None) -> Dataset:
    """Return the data set whose facts are in `target`, streamed by the decoders if there are any."""
    facts = json.loads((target / FACTS).read_text())
    skipped = tuple((file, reason) for file, reason in facts["skipped"])
    images: Images = (
        np.memmap(target / PIXELS, np.uint8, "r", shape=(facts["images"], crop.size, crop.size, 3))
        if decoders is None
        else Streamed(_used_places(source, skipped), crop, decoders)
    )
    return Dataset(
        name=_name_of(source),
        source=given,
        classes=tuple(facts["classes"]),
        images=images,
        labels=np.load(target / LABELS),
        fingerprint=facts["fingerprint"],
        skipped=skipped,
        digests=np.load(target / DIGESTS),
    )


def _choose_reading(
    source: Path, crop: CropSpec, cache: Path, processes: int, announce: Callable[[str], None]
) -> Reading:
    """Return how to read a data set, by its size when packed; log the reason if it is streamed."""
    packed, seen = (_target(cache, crop, reading) / FACTS for reading in ("packed", "streamed"))
    folder = None if packed.is_file() else cache.parent
    known = next((facts for facts in (packed, seen) if facts.is_file()), None)
    if known:
        count = json.loads(known.read_text())["images"]
    else:
        with listed(source) as listing:
            count = sum(map(len, find_classes(listing, source).values()))
    reason = too_big(count, crop.size, folder, processes=processes)
    if reason is None:
        return "packed"
    announce(f"the {count:,} images of {source.name} are decoded as they are needed: {reason}")
    return "streamed"


def _target(cache: Path, crop: CropSpec, reading: Reading) -> Path:
    """Return the folder for what is found, which for looking through does not depend on the images' size."""
    resized = "" if crop.shorter_side == crop.size else f"-of-{crop.shorter_side}"
    interpolated = "" if crop.interpolation == _USUAL_INTERPOLATION else f"-{crop.interpolation}"
    by = "" if crop.resizer == PILLOW else f"-by-{crop.resizer}"  # folders of before there was a choice have none
    what = "files" if reading == "streamed" else f"{crop.size}{resized}{interpolated}{by}"
    return cache.with_name(f"{cache.name}-{what}")


def _used_places(source: Path, skipped: Sequence[tuple[str, str]]) -> list[Place]:
    left_out = {file for file, _ in skipped}
    with listed(source) as listing:
        files = [path for paths in find_classes(listing, source).values() for path in paths]
        return places_of(source, listing, [path for path in files if str(path) not in left_out])


@contextlib.contextmanager
def opened(source: Path) -> Iterator[tuple[dict[str, list[PurePosixPath]], Callable[[PurePosixPath], bytes]]]:
    """Open a data set: class name → files, in label order, and what reads a file's bytes.

    Raises DataError for a missing, empty or wrongly nested folder.
    """
    source = existing(source)
    with listed(source) as listing:
        yield find_classes(listing, source), listing.read


def write_skipped(skipped: Sequence[tuple[str, str]], path: Path) -> None:
    """List skipped files with their reasons, as CSV."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "reason"))
        rows.writerows(skipped)


def stratified_hold_out(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of `count` images, drawn with a seed, each class by its share; int64 (count,)."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    ranks = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        # Image i of a class of n is drawn once the fraction (i + 0.5) / n of everything has been.
        ranks[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(np.argsort(ranks, kind="stable")[:count])


def _name_of(source: Path) -> str:
    """Return the data set's name: cifar10 for cifar10-train.tar, pets for pets/train."""
    while purpose_of(_stem(source)) and source.parent.name:
        source = source.parent
    stem = _stem(source)
    for ending in _ENDINGS:
        stem = stem.removesuffix(ending)
    return "".join(letter if letter.isalnum() else "-" for letter in stem.lower()).strip("-") or "images"


def _stem(source: Path) -> str:
    name = source.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name
