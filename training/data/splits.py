"""Splits of user data sets, and the balance of their classes.

A split is drawn with a seed, class by class, and written down as split.csv in the folder of the run.
"""

import csv
import dataclasses
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset, opened
from training.data_files.listing import DataError

_UNEVEN = 1.5  # times as many images in the largest class as in the smallest
_MOST_CLASSES_LISTED = 10


@dataclass(frozen=True, slots=True)
class Part:
    """Images of a data set with one purpose, by their indices, int64 (N,)."""

    name: str
    dataset: Dataset
    indices: NDArray[np.int64]

    @property
    def labels(self) -> NDArray[np.int64]:
        return self.dataset.labels[self.indices]

    @property
    def digests(self) -> NDArray[np.uint64]:
        return self.dataset.digests[self.indices]


def whole(name: str, dataset: Dataset) -> Part:
    """Return all images of a data set as one part."""
    return Part(name, dataset, np.arange(len(dataset)))


def hold_out_share(labels: NDArray[np.int64], share: float, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of this share of each class, drawn with a seed; int64 (n,).

    At least one image of a class is held out and at least one is not; of a class with a single image, none is.
    """
    random = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = random.permutation(np.flatnonzero(labels == label))
        chosen.append(members[: min(max(1, round(share * len(members))), len(members) - 1)])
    return np.sort(np.concatenate(chosen))


def with_classes(dataset: Dataset, classes: tuple[str, ...]) -> Dataset:
    """Return a part of the images, labelled as the whole is; it may lack classes. Raises DataError for others."""
    unknown = [name for name in dataset.classes if name not in classes]
    if unknown:
        absent = [name for name in classes if name not in dataset.classes]
        lacking = f" (it lacks {', '.join(map(repr, absent[:_MOST_CLASSES_LISTED]))})" if absent else ""
        raise DataError(
            f"{dataset.source} has classes without images to train on: "
            f"{', '.join(map(repr, unknown[:_MOST_CLASSES_LISTED]))}{lacking}; "
            "put some into the training folder, or rename or remove these"
        )
    places = np.array([classes.index(name) for name in dataset.classes], np.int64)
    return dataclasses.replace(dataset, classes=classes, labels=places[dataset.labels])


@dataclass(frozen=True, slots=True)
class Balance:
    """The numbers of training and validation images of each class."""

    classes: tuple[str, ...]
    trained_on: tuple[int, ...]
    held_out: tuple[int, ...]

    @property
    def ratio(self) -> float:
        """Training images of the largest class, for each one of the smallest."""
        return max(self.trained_on) / min(self.trained_on)

    def facts(self) -> dict[str, Any]:
        """Return what a run records of its classes."""
        rows = zip(self.classes, self.trained_on, self.held_out, strict=True)
        return {
            "classes": {name: {"train": trained, "held_out": held_out} for name, trained, held_out in rows},
            "largest_to_smallest": round(self.ratio, 3),
        }

    def lines(self, class_weights: str | None) -> list[str]:
        """Return the warnings about imbalance; `class_weights` is the recipe's."""
        order = sorted(range(len(self.classes)), key=lambda label: -self.trained_on[label])
        shown = [
            f"{self.classes[label]} {self.trained_on[label]:,} + {self.held_out[label]:,}"
            for label in order[:_MOST_CLASSES_LISTED]
        ]
        more = f" and {len(order) - len(shown):,} more classes" if len(order) > len(shown) else ""
        lines = [f"images to train on + held out: {', '.join(shown)}{more}"]
        if self.ratio >= _UNEVEN:
            weighed = "the loss weighs all classes equally"
            advice = weighed if class_weights == "balanced" else "use --set class_weights=balanced to reweight the loss"
            largest, smallest = self.classes[order[0]], self.classes[order[-1]]
            lines.append(
                f"class imbalance: {largest!r} has {self.ratio:.1f}x as many training images as {smallest!r}; {advice}"
            )
        absent = [name for name, count in zip(self.classes, self.held_out, strict=True) if not count]
        if absent and any(self.held_out):
            lines.append(
                f"no image of {', '.join(map(repr, absent[:_MOST_CLASSES_LISTED]))} is held out, so its accuracy "
                "cannot be measured; add images"
            )
        return lines


def balance(classes: Sequence[str], trained_on: NDArray[np.int64], held_out: NDArray[np.int64]) -> Balance:
    """Count the images of each class; both arrays hold labels, int64 (N,)."""
    counts = [np.bincount(labels, minlength=len(classes)).tolist() for labels in (trained_on, held_out)]
    return Balance(tuple(classes), tuple(counts[0]), tuple(counts[1]))


def skipped_files(parts: Iterable[Part], data: Path) -> list[tuple[str, str]]:
    """Return all files that are not used, as their paths inside the data if they are there, with reasons."""
    datasets = {part.dataset.source: part.dataset for part in parts}
    return [
        (str(_folder_in(data, dataset) / file), reason)
        for dataset in datasets.values()
        for file, reason in dataset.skipped
    ]


def split_table(parts: Iterable[Part], data: Path) -> bytes:
    """Return split.csv: each file that is used, as its path inside the data if it is there, its class, and its part."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("file", "label", "part"))
    for part in parts:
        folder, files = _folder_in(data, part.dataset), used_files(part.dataset)
        for index, label in zip(part.indices, part.labels, strict=True):
            rows.writerow((folder / files[index], part.dataset.classes[label], part.name))
    return text.getvalue().encode(errors="surrogateescape")  # a file's name may be any bytes


def path_of(part: Part, place: int, data: Path) -> str:
    """Return the file of one image of a part, as its path inside the data if it is there."""
    return str(_folder_in(data, part.dataset) / used_files(part.dataset)[part.indices[place]])


def _folder_in(data: Path, dataset: Dataset) -> Path:
    """Return a part's folder as seen from the data; `.` if it is all of it."""
    source = Path(dataset.source)
    return source.relative_to(data) if source.is_relative_to(data) else source


def used_files(dataset: Dataset) -> list[PurePosixPath]:
    """Return the file of each image of a data set, in its order, as paths inside its source."""
    skipped = {file for file, _ in dataset.skipped}
    with opened(Path(dataset.source)) as (classes, _read):
        return [file for files in classes.values() for file in files if str(file) not in skipped]
