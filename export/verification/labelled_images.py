"""Labelled images for measuring a network: from `--data`, or else those of its run if they are unchanged."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.sources.trained import Source, default_preprocessing
from service.images.preprocessing import Pixels, Resizer, installed_resizers, usual_resizer
from service.model_files.card import Preprocessing
from training.data.crops import CropSpec
from training.data.dataset import DEFAULT_MAX_SKIPPED, DataError, Dataset, Reading, load, reading_of
from training.data.image_arrays import Images
from training.data.splits import with_classes
from training.data_files.class_folders import first_few
from training.data_files.parts import find_folders, part_to_measure
from training.data_files.sources import is_there
from training.networks.resnet import Architecture
from training.runs.record import DatasetRecord

_PARITY_IMAGES = 64  # each runs once in PyTorch and once in each of the batch sizes


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """Labelled images after preprocessing: uint8 (N, H, W, 3), labels int64 (N,), and the name of the data set."""

    pixels: Images
    labels: NDArray[np.int64]
    name: str

    def spread(self) -> Pixels:
        """Return up to 64 images, uint8 (n, H, W, 3), evenly spread over the data set and so over the classes."""
        chosen = np.linspace(0, len(self.pixels) - 1, min(_PARITY_IMAGES, len(self.pixels))).round().astype(int)
        return np.array(self.pixels[chosen])


@dataclass(frozen=True, slots=True)
class Evidence:
    """Images for measurements; None: not available on this machine."""

    test: LabelledImages | None = None  # for accuracy and parity
    held_out: LabelledImages | None = None  # for the temperature


def find_evidence(source: Source, data: Path | None, log: Callable[[str], None]) -> Evidence:
    """Return the images for measurements: those of `data`, or else the run's own if they are unchanged.

    Images that the network was trained on never count for its accuracy, also under another path. Raises ExportError for
    unusable data.
    """
    held_out = _held_out(source, log)
    if data is not None:
        # Training images are recognised only if they are read in the same way.
        was_streamed = source.train_set is not None and reading_of(source.train_set.fingerprint) == "streamed"
        reading: Reading | None = "streamed" if was_streamed else None
        given = _load_fitting(data, source, log, source.max_skipped, reading)
        if source.train_set is None or not _is_of_the_run(given, source.train_set, source, log):
            return Evidence(_named(given), held_out)
        if held_out is None:
            raise ExportError(
                f"the network was trained on all images of {data}, which say nothing of its accuracy; give --data "
                "other images, or leave it out"
            )
        log(f"the network was trained on {given.name}, so only what was held out of it counts")
        return Evidence(held_out, held_out)
    test = _run_data(source.test_set, source, log)
    return Evidence(held_out if test is None else _named(test), held_out)


class Described(Protocol):
    """The description that images must fit: a source, or the card of a file."""

    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def synsets(self) -> tuple[str, ...] | None: ...
    @property
    def preprocessing(self) -> Preprocessing: ...


def labelled_images(data: Path, fitting: Described, log: Callable[[str], None]) -> LabelledImages:
    """Return the images of a data set of some or all of these classes. Raises ExportError for others."""
    return _named(_load_fitting(data, fitting, log))


def class_names(data: Path, described: Architecture, log: Callable[[str], None]) -> tuple[str, ...]:
    """Return the classes of a data set, for a network of this architecture. Raises ExportError."""
    with _as_export_error():
        data = find_folders(data).training
    return _load(data, default_preprocessing(described), log, least_classes=2).classes


def training_pixels(source: Source, most: int, log: Callable[[str], None]) -> Pixels | None:
    """Return up to `most` training images of the run, uint8 (n, H, W, 3), evenly selected; None without the set."""
    dataset = _run_data(source.train_set, source, log)
    if dataset is None:
        return None
    trained = np.setdiff1d(np.arange(len(dataset)), np.array(source.held_out, dtype=int))
    chosen = trained[np.linspace(0, len(trained) - 1, min(most, len(trained))).round().astype(int)]
    return np.array(dataset.images[chosen])


def _held_out(source: Source, log: Callable[[str], None]) -> LabelledImages | None:
    if source.validation_set is not None:
        validation_set = _run_data(source.validation_set, source, log)
        return None if validation_set is None else _named(validation_set)
    dataset = _run_data(source.train_set, source, log) if source.held_out else None
    if dataset is None:
        return None
    indices = np.array(source.held_out)
    return LabelledImages(
        dataset.chosen(indices), dataset.labels[indices], f"{_name_of(dataset)}, held out of training"
    )


def _run_data(facts: DatasetRecord | None, source: Source, log: Callable[[str], None]) -> Dataset | None:
    """Return a data set that the run names, if it exists and is unchanged."""
    if facts is None:
        return None
    if not is_there(facts.source):
        log(f"{facts.source} is no longer there, so nothing is measured on it")
        return None
    try:
        # The run has accepted these files, and read them packed or streamed.
        reading = reading_of(facts.fingerprint)
        dataset = _load(facts.source, source.preprocessing, log, max_skipped=1.0, reading=reading)
        dataset = with_classes(dataset, source.labels)
        is_the_same = _is_of_the_run(dataset, facts, source, log)
    except (ExportError, DataError) as error:
        log(f"{error}; nothing is measured on it")
        return None
    if not is_the_same:
        log(f"{facts.source} has changed since the run, so nothing is measured on it")
        return None
    return dataset


def _is_of_the_run(found: Dataset, facts: DatasetRecord, source: Source, log: Callable[[str], None]) -> bool:
    """Return whether a data set is one of the run's, perhaps by another resizer.

    Raises ExportError if that resizer is not installed.
    """
    if found.fingerprint == facts.fingerprint or source.resizer in (None, usual_resizer()):
        return found.fingerprint == facts.fingerprint
    if found.reading == "streamed" or reading_of(facts.fingerprint) == "streamed":
        return False  # then the fingerprint is over the files
    if source.resizer not in installed_resizers():
        raise ExportError(
            f"whether {found.source} is what the run was trained on cannot be found out: its images were resized by "
            f"{source.resizer}, which is not installed; install it"
        )
    again = _load(
        Path(found.source), source.preprocessing, log, max_skipped=1.0, reading="packed", resizer=source.resizer
    )
    return again.fingerprint == facts.fingerprint


def _load_fitting(
    path: Path,
    source: Described,
    log: Callable[[str], None],
    max_skipped: float = DEFAULT_MAX_SKIPPED,
    reading: Reading | None = None,
) -> Dataset:
    """Load a data set of some or all of the network's classes; ImageNet's may have names or synset ids.

    Of a data set with parts, the test part is loaded.
    """
    with _as_export_error():
        path = part_to_measure(path, log)
    dataset = _load(path, source.preprocessing, log, max_skipped=max_skipped, reading=reading)
    for names in (source.labels, source.synsets):
        if names is not None and set(dataset.classes) <= set(names):
            indices = np.array([names.index(name) for name in dataset.classes])
            return dataclasses.replace(dataset, classes=source.labels, labels=indices[dataset.labels])
    unknown = [name for name in dataset.classes if name not in source.labels]
    raise ExportError(
        f"{path} has {len(dataset.classes)} classes that are not the network's {len(source.labels)}: "
        f"{_first_difference(dataset.classes, source.labels)}, and {first_few(unknown)} is unknown; give --data "
        "images of the network's classes"
    )


def _first_difference(found: tuple[str, ...], requested: tuple[str, ...]) -> str:
    for index, (one, other) in enumerate(zip(found, requested, strict=False)):
        if one != other:
            return f"number {index} is {one!r}, not {other!r}"
    return "one list is the beginning of the other"


@contextlib.contextmanager
def _as_export_error() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise ExportError(str(error)) from None


def _load(
    path: Path,
    preprocessing: Preprocessing,
    log: Callable[[str], None],
    *,
    max_skipped: float = DEFAULT_MAX_SKIPPED,
    reading: Reading | None = None,
    least_classes: int = 1,
    resizer: Resizer | None = None,
) -> Dataset:
    height, width = preprocessing.crop
    if height != width:
        raise ExportError("data sets are prepared with square crops only; export without --data")
    crop = CropSpec(
        height,
        shorter_side=preprocessing.shorter_side,
        interpolation=preprocessing.interpolation,
        resizer=resizer or usual_resizer(),
    )
    with _as_export_error():
        return load(path, crop, max_skipped=max_skipped, announce=log, reading=reading, least_classes=least_classes)


def _named(dataset: Dataset) -> LabelledImages:
    return LabelledImages(dataset.images, dataset.labels, _name_of(dataset))


def _name_of(dataset: Dataset) -> str:
    """Return a name that distinguishes the parts of a data set: cifar10 (cifar10-test.tar)."""
    return f"{dataset.name} ({Path(dataset.source).name})"
