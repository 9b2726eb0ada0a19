"""The mean and standard deviation of each channel of a training set, and the mean image.

A very large set is measured on a sample, drawn with the run's seed.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.data.image_arrays import Images

_MOST_PIXELS = 250_000_000  # 5,000 images of 224 x 224 pixels; all of CIFAR's
_PIXELS_AT_A_TIME = 12_800_000  # bounds the memory of the sums
_SMALLEST_DEVIATION = 1e-3  # of images of one colour


@dataclass(frozen=True, slots=True)
class Statistics:
    """Mean and standard deviation of each channel in 0…1, and the mean image in 0…255, of `images` images."""

    images: int
    mean: list[float]
    standard_deviation: list[float]
    mean_image: NDArray[np.float32]  # (H, W, 3)


def sample(indices: NDArray[np.int64], side: int, seed: int) -> NDArray[np.int64]:
    """Return which images of `side` x `side` pixels to measure: all, or a seeded sample; int64 (n,), in order."""
    most = max(1, _MOST_PIXELS // (side * side))
    if len(indices) <= most:
        return indices
    return np.sort(np.random.default_rng(seed).choice(indices, most, replace=False))


def measure(images: Images) -> Statistics:
    """Return the statistics of uint8 images (N, H, W, 3), which are read in parts."""
    count, height, width, _ = images.shape
    sums, squares = np.zeros((height, width, 3)), np.zeros(3)
    size = max(1, _PIXELS_AT_A_TIME // (height * width))
    for start in range(0, count, size):
        part = images[start : start + size]
        sums += part.sum(0, dtype=np.float64)
        squares += np.einsum("nhwc,nhwc->c", part, part, dtype=np.float64, casting="unsafe")
    pixels = count * height * width
    mean = sums.sum((0, 1)) / pixels
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    return Statistics(
        images=count,
        mean=[round(value, 6) for value in (mean / 255).tolist()],
        standard_deviation=[max(round(value, 6), _SMALLEST_DEVIATION) for value in (deviation / 255).tolist()],
        mean_image=(sums / count).astype(np.float32),
    )
