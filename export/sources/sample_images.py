"""The committed sample images: clouds, textures, shapes, gradients; small, of all three formats, all different.

Parity is measured on them without a data set, and random weights are adjusted to them.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from service.images.preprocessing import Pixels, Resizer, image_to_pixels, installed_resizers
from service.model_files.card import Preprocessing

_FOLDER = Path(__file__).parents[1] / "samples"


def sample_pixels(preprocessing: Preprocessing, resizer: Resizer | None = None) -> Pixels:
    """Return the sample images after this preprocessing, uint8 (17, height, width, 3)."""
    return to_pixels((path.read_bytes() for path in sorted(_FOLDER.iterdir())), preprocessing, resizer)


def samples_by_every_resizer(preprocessing: Preprocessing) -> Pixels:
    """Return the sample images by each installed resizer, uint8 (N, H, W, 3), without duplicates."""
    first, *others = (sample_pixels(preprocessing, resizer) for resizer in installed_resizers())
    differing = [other[(other != first).any(axis=(1, 2, 3))] for other in others]
    return np.concatenate([first, *differing])


def to_pixels(images: Iterable[bytes], preprocessing: Preprocessing, resizer: Resizer | None = None) -> Pixels:
    """Return image files preprocessed by the service's code, uint8 (N, height, width, 3)."""
    return np.stack(
        [
            image_to_pixels(
                image,
                shorter_side=preprocessing.shorter_side,
                crop=preprocessing.crop,
                interpolation=preprocessing.interpolation,
                resizer=resizer,
            )[0]
            for image in images
        ]
    )
