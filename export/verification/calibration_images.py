"""The images that determine the ranges of int8, and separate ones for choosing the method.

A few hundred images similar to those of the service: from a folder or a tar of any layout, else from the run's training
images. The service's own preprocessing is applied.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from export.errors import ExportError
from export.options import Precision, PrecisionOptions
from export.sources.sample_images import sample_pixels, to_pixels
from export.sources.trained import Source
from export.verification.labelled_images import training_pixels
from service.errors import ServiceError
from service.images.preprocessing import Pixels
from service.model_files.card import Preprocessing
from training.data_files.listing import DataError
from training.data_files.sources import existing, listed

_MOST_IMAGES = 384  # 256 for measuring ranges, 128 for choosing the method
_FEW_IMAGES = 100  # below which a warning is logged
_NONE = "--precision int8 needs images like those to be served; give a few hundred with --calibration FOLDER"


@dataclass(frozen=True, slots=True)
class CalibrationImages:
    """Two thirds for measuring ranges, one third for choosing; both uint8 (N, height, width, 3)."""

    measured: Pixels
    judging: Pixels
    name: str


def find_images(source: Source, folder: Path | None, log: Callable[[str], None]) -> CalibrationImages:
    """Return the images of a folder or a tar, else training images of the run, else (random weights) the samples.

    Raises ExportError if there are none.
    """
    if folder is not None:
        pixels = read_unlabelled(folder, source.preprocessing, most=_MOST_IMAGES, flag="--calibration", log=log)
        if len(pixels) < _FEW_IMAGES:
            log(f"{folder} has {len(pixels)} images, which are few for ranges; with a few hundred int8 loses less")
        return _divided(pixels, folder.name)
    training = training_pixels(source, _MOST_IMAGES, log)
    if training is not None:
        return _divided(training, "training images")
    if source.is_random:
        pixels = sample_pixels(source.preprocessing)
        return CalibrationImages(pixels, pixels[:0], "sample images")
    raise ExportError(_NONE)


def refuse_lack_of_images(options: PrecisionOptions) -> None:
    """Raise ExportError for int8 of others' weights, which come without images, if no images are given."""
    if options.precision is Precision.INT8 and options.calibration is None:
        raise ExportError(_NONE)


def _divided(pixels: Pixels, name: str) -> CalibrationImages:
    judges = np.arange(len(pixels)) % 3 == 2
    return CalibrationImages(pixels[~judges], pixels[judges], name)


def read_unlabelled(
    path: Path, preprocessing: Preprocessing, *, most: int, flag: str, log: Callable[[str], None]
) -> Pixels:
    """Return up to `most` images, evenly selected from a folder or a tar of any layout, uint8 (N, height, width, 3).

    Files that cannot be decoded are skipped. Raises ExportError, which names the `flag`, if no image remains.
    """
    try:
        with listed(existing(path)) as listing:
            pixels, skipped = [], 0
            for file in _spread_out(listing.files, most):
                try:
                    pixels.append(to_pixels([listing.read(file)], preprocessing)[0])
                except (ServiceError, OSError):
                    skipped += 1
    except DataError:
        raise ExportError(f"{path} is neither a folder nor a tar file; give {flag} a folder of images") from None
    if not pixels:
        raise ExportError(f"{path} holds no image that can be decoded; give {flag} a folder of images")
    if skipped:
        log(f"{skipped} files of {path} are no images that can be decoded, and are left out")
    return np.stack(pixels)


def _spread_out(files: Sequence[PurePosixPath], most: int) -> list[PurePosixPath]:
    """Return a limited number of files, evenly selected from the list."""
    chosen = np.linspace(0, len(files) - 1, min(most, len(files))).round().astype(int)
    return [files[index] for index in chosen]
