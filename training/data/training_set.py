"""The training set as the loop sees it: labels, and the augmented images of one step.

Where the pixels come from is the one thing that differs: `Packed` holds all of them on the device, as uint8; `Streamed`
has the files decoded by other processes, some steps ahead. Neither keeps a state that the images depend on.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from service.images.preprocessing import Resizer
from training.augmentation.batch_transforms import augment, batch_indices, colour_shifts, erased, trivially_augmented
from training.data.crops import CropSpec
from training.data.decoder_pool import Decoders, gathered
from training.data.decoder_process import Decoded
from training.data.normalization import Normalize
from training.data_files.listing import Place
from training.hardware.transfer import moved
from training.recipes.recipe import Recipe

_STEPS_AHEAD = 3  # that are decoded while the device computes


class Pixels(Protocol):
    """The source of the pixels of a training set."""

    def of(self, indices: Tensor, step: int, part: slice) -> Tensor:
        """Return the `part` of a step's images, uint8 (n, H, W, 3) on the device.

        `indices` are the places of the step's whole batch in the training set, int64 (N,) on the CPU.
        """


@dataclass(frozen=True, slots=True)
class Packed:
    """All images of a training set, uint8 (N, H, W, 3) on the device."""

    images: Tensor

    def of(self, indices: Tensor, step: int, part: slice) -> Tensor:
        """Return the chosen images, uint8 (n, H, W, 3); the step does not matter."""
        return self.images[moved(indices[part], self.images.device)]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Requested images that are being decoded."""

    indices: Tensor
    part: slice
    places: list[Place]
    answers: list["Future[Decoded]"]

    def is_for(self, indices: Tensor, part: slice) -> bool:
        return self.part == part and torch.equal(self.indices, indices)


@dataclass(frozen=True, slots=True)
class Streamed:
    """Images that are decoded for each step anew, a few steps ahead of the one that needs them.

    The windows cut out of them follow from (seed, step, place in the batch). Raises DataError if an image no longer
    can be decoded, or a process that decodes has died.
    """

    places: Sequence[Place]
    crop: CropSpec
    decoders: Decoders
    device: str
    seed: int
    batch_size: int
    _asked: dict[int, _Asked] = field(default_factory=dict)  # by step

    def of(self, indices: Tensor, step: int, part: slice) -> Tensor:
        """Return the images of a step, uint8 (n, H, W, 3), and request those of the next ones."""
        self._forget_all_but(range(step, step + _STEPS_AHEAD + 1))
        if step not in self._asked or not self._asked[step].is_for(indices, part):
            self._ask(indices, step, part)
        for later in range(step + 1, step + _STEPS_AHEAD + 1):
            if later not in self._asked:
                self._ask(batch_indices(self.seed, later, len(self.places), self.batch_size), later, part)
        asked = self._asked.pop(step)
        return moved(torch.from_numpy(gathered(asked.answers, asked.places)), self.device)

    def _ask(self, indices: Tensor, step: int, part: slice) -> None:
        places = [self.places[index] for index in indices[part].tolist()]
        draws = [(self.seed, step, position) for position in range(len(indices))[part]]
        self._asked[step] = _Asked(indices, part, places, self.decoders.submit(places, self.crop, draws))

    def _forget_all_but(self, steps: range) -> None:
        for step in [step for step in self._asked if step not in steps]:
            for answer in self._asked.pop(step).answers:
                answer.cancel()


def crop_for_training(recipe: Recipe, resizer: Resizer) -> CropSpec:
    """Return the crop of an image for training; a padded crop is made later, from the whole batch."""
    if recipe.crop == "pad":
        return CropSpec(recipe.image_size, shorter_side=recipe.image_size, resizer=resizer)
    return CropSpec(
        recipe.image_size,
        recipe.crop,
        scale_range=recipe.scale_range,
        area=recipe.crop_area,
        ratio=recipe.crop_ratio,
        resizer=resizer,
    )


@dataclass(frozen=True, slots=True)
class TrainingImages:
    """A training set: labels int64 (N,) on the device, and pixels, which are normalized and augmented on it."""

    labels: Tensor
    pixels: Pixels
    normalize: Normalize
    recipe: Recipe
    pixel_mean: Tensor | None = None  # that the network subtracts, (3, H, W) on the device

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor, seed: int, epoch: int, step: int, part: slice, side: int | None = None) -> Tensor:
        """Return the `part` of a step's images as the network's input, float (n, 3, H, W) in channels-last order.

        They are resized to `side` pixels; None: the recipe's `image_size`. `indices` are the positions of the step's
        whole batch in the training set, int64 (N,) on the CPU.
        """
        recipe, count = self.recipe, len(indices)
        pixels = self.pixels.of(indices, step, part)
        if recipe.trivial_augment:
            pixels = trivially_augmented(pixels, count, seed, step, part)
        images = self._augmented(self.normalize(pixels), indices, seed, epoch, step, part)
        if recipe.pca_colour > 0:
            shifts = colour_shifts(count, recipe.pca_colour, seed, step)[part]
            images = images + self.normalize.difference(shifts)[:, :, None, None]
        if recipe.random_erasing > 0:
            images = erased(images, count, recipe.random_erasing, seed, step, part)
        return images if side in (None, images.shape[-1]) else _resized(images, side)

    def _augmented(self, images: Tensor, indices: Tensor, seed: int, epoch: int, step: int, part: slice) -> Tensor:
        """Return crops of normalized images, (n, 3, H, W), from which the mean image has been subtracted before.

        It is added again, as the network subtracts it. So it moves with the image, and the padding is the mean image.
        """
        if self.pixel_mean is None:
            return augment(images, indices, self.recipe, seed, epoch, step, part)
        centred = images - self.pixel_mean.permute(1, 2, 0)
        return augment(centred, indices, self.recipe, seed, epoch, step, part) + self.pixel_mean


def _resized(images: Tensor, side: int) -> Tensor:
    resized = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
    return resized.contiguous(memory_format=torch.channels_last)
