"""Crops of images: the centre, or a random part.

centre          the shorter side resized, the centre cut out: what testing and serving see
scale_jitter    the shorter side resized to a random length, a random square cut out (section 3.4 of the paper)
random_resized  a random part of the image's area, of a random shape, resized to a square (Szegedy et al. 2015)
"""

import math
from dataclasses import dataclass, field

import numpy as np

from service.images.preprocessing import Resizer, usual_resizer

Box = tuple[float, float, float, float]  # left, top, right, bottom

_TRIES = 10  # for a part that fits into the image, as in torchvision
_STREAM = 8  # of random numbers, apart from those of training.augmentation


@dataclass(frozen=True, slots=True)
class CropSpec:
    """How images are cropped; crops are resized to squares of `size` pixels a side."""

    size: int
    kind: str = "centre"
    shorter_side: int = 0  # centre: pixels; 0: as `size`
    scale_range: tuple[int, int] = (256, 480)  # scale_jitter: pixels of the shorter side
    area: tuple[float, float] = (0.08, 1.0)  # random_resized: share of the image's area
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # random_resized: width to height
    interpolation: str = "bilinear"
    resizer: Resizer = field(default_factory=usual_resizer)

    def __post_init__(self) -> None:
        if not self.shorter_side:
            object.__setattr__(self, "shorter_side", self.size)

    def box(self, width: int, height: int, random: np.random.Generator) -> Box:
        """Return the crop in an image of that size, in its pixels."""
        if self.kind == "scale_jitter":
            return self._jittered(width, height, random)
        return self._random_part(width, height, random)

    def decoded_side(self) -> int:
        """Return to how many pixels a large image's shorter side may be reduced without a crop losing detail."""
        if self.kind == "scale_jitter":
            return max(self.scale_range)
        return math.ceil(self.size / math.sqrt(self.area[0] * min(self.ratio[0], 1 / self.ratio[1])))

    def _jittered(self, width: int, height: int, random: np.random.Generator) -> Box:
        low, high = (max(side, self.size) for side in self.scale_range)
        scale = int(random.integers(low, high + 1)) / min(width, height)
        new_width, new_height = max(self.size, int(scale * width)), max(self.size, int(scale * height))
        left = int(random.integers(new_width - self.size + 1))
        top = int(random.integers(new_height - self.size + 1))
        across, down = width / new_width, height / new_height
        return left * across, top * down, (left + self.size) * across, (top + self.size) * down

    def _random_part(self, width: int, height: int, random: np.random.Generator) -> Box:
        for _ in range(_TRIES):
            area = width * height * random.uniform(*self.area)
            ratio = math.exp(random.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < high <= height:
                left, top = int(random.integers(width - wide + 1)), int(random.integers(height - high + 1))
                return left, top, left + wide, top + high
        wide = min(width, max(1, round(height * self.ratio[1])))  # the largest centre whose shape is allowed
        high = min(height, max(1, round(width / self.ratio[0])))
        left, top = (width - wide) // 2, (height - high) // 2
        return left, top, left + wide, top + high


def random_of(seed: int, step: int, position: int) -> np.random.Generator:
    """Return the random numbers that decide on the crop of one image of one step's batch."""
    return np.random.default_rng((seed, _STREAM, step, position))
