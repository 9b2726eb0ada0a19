"""The training set as the loop sees it: labels, and the augmented pictures of one step.

Where the pixels come from is the one thing that differs: `Packed` holds all of them on the device, as uint8.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from training.augment import augment
from training.normalise import Normalise
from training.recipe import Recipe


class Pixels(Protocol):
    """Where the pixels of a training set come from."""

    def of(self, indices: Tensor, step: int, part: slice) -> Tensor:
        """Return the `part` of a step's pictures, uint8 (n, H, W, 3) on the device.

        `indices` are the places of the step's whole batch in the training set, int64 (N,) on the CPU.
        """


@dataclass(frozen=True, slots=True)
class Packed:
    """All pictures of a training set, uint8 (N, H, W, 3) on the device."""

    images: Tensor

    def of(self, indices: Tensor, step: int, part: slice) -> Tensor:
        """Return the chosen pictures; the step does not matter."""
        return self.images[indices[part]]


@dataclass(frozen=True, slots=True)
class Pictures:
    """A training set: labels int64 (N,) on the device, and pixels, which are normalised and augmented on it."""

    labels: Tensor
    pixels: Pixels
    normalise: Normalise
    recipe: Recipe

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, seed: int, epoch: int, step: int, part: slice) -> Tensor:
        """Return the `part` of a step's pictures as the network takes them, float (n, 3, H, W) in channels-last order.

        `indices` are the places of the step's whole batch in the training set, int64 (N,) on the CPU.
        """
        chosen = self.normalise(self.pixels.of(indices, step, part))
        return augment(chosen, indices, self.recipe, seed, epoch, step, part)
