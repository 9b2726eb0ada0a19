"""Augmentation of whole batches, as tensor operations on the device. Random numbers follow from (seed, epoch or step).

Random crops out of a padded image and mirror images are one gather: rows and columns of each image are index
lists, so shifting and mirroring cost no more than copying.
"""

import functools
import math

import torch
from torch import Tensor

from training.augmentation.trivial_augment import trivial_augment
from training.hardware.transfer import moved
from training.recipes.recipe import Recipe, steps_per_epoch

# Streams of random numbers, so that order, crops and flips of the same step do not share their numbers; two more are
# those of training.augmentation.mixing (4) and training.data.crops (8).
_ORDER, _CROPS, _FLIPS, _COLOURS, _ERASING, _TRIVIAL = 1, 2, 3, 5, 6, 7
_WHOLE = slice(None)


# The principal components of ImageNet's colours, as fractions of 255: directions (columns) and deviations along them.
# Krizhevsky et al. 2012 (section 4.1) describe them and their factor 0.1; the values are those that fb.resnet.torch
# computed and published.
_COLOUR_DIRECTIONS = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))
_COLOUR_DEVIATIONS = (0.2175, 0.0188, 0.0045)

_ERASED_AREA, _ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # Zhong et al. 2017
_ERASING_TRIES = 10  # for a rectangle that fits into the image


def generator(seed: int, stream: int, moment: int) -> torch.Generator:
    """Return the random numbers of one moment (an epoch or a step) of one stream of a run."""
    mixed = (seed * 1_000_003 + stream) * 1_000_000_007 + moment
    return torch.Generator().manual_seed(mixed % (2**63))


@functools.lru_cache(maxsize=2)
def batch_order(seed: int, epoch: int, images: int) -> Tensor:
    """Return the order of the training set in one epoch, int64 (images,)."""
    return torch.randperm(images, generator=generator(seed, _ORDER, epoch))


def batch_indices(seed: int, step: int, images: int, batch_size: int) -> Tensor:
    """Return the places in the training set of the images of one step, int64 (batch_size,)."""
    epoch, place = divmod(step, steps_per_epoch(images, batch_size))
    return batch_order(seed, epoch, images)[place * batch_size :][:batch_size]


def augment(
    images: Tensor, indices: Tensor, recipe: Recipe, seed: int, epoch: int, step: int, part: slice = _WHOLE
) -> Tensor:
    """Return cropped and mirrored images, float (N, 3, H, W) in channels-last order.

    `images` are normalized images, float (N, H, W, 3), so that the padding with zeros is the mean colour;
    `indices` are the places of the whole batch in the training set, which decide on alternating flips; `part` says
    which of them the images are.
    """
    side, padding = images.shape[1], recipe.crop_padding if recipe.crop == "pad" else 0
    random = generator(seed, _CROPS, step)
    padded = torch.nn.functional.pad(images, (0, 0, padding, padding, padding, padding))
    top, left = torch.randint(0, 2 * padding + 1, (2, len(indices), 1), generator=random)[:, part]
    mirrored = _mirrored(recipe, indices, seed, epoch, random)[part].unsqueeze(1)
    line = torch.arange(side)
    rows = top + line
    columns = left + torch.where(mirrored, side - 1 - line, line)
    device = images.device
    image = torch.arange(len(images), device=device)[:, None, None]
    cut = padded[image, moved(rows, device)[:, :, None], moved(columns, device)[:, None, :]]
    return cut.permute(0, 3, 1, 2)


def _mirrored(recipe: Recipe, indices: Tensor, seed: int, epoch: int, random: torch.Generator) -> Tensor:
    """Return which images are mirrored, bool (N,): by chance, or every image in every second epoch."""
    if recipe.flip == "none":
        return torch.zeros(len(indices), dtype=torch.bool)
    if recipe.flip == "random":
        return torch.rand(len(indices), generator=random) < 0.5
    first = torch.rand(int(indices.max()) + 1, generator=generator(seed, _FLIPS, 0)) < 0.5
    return first[indices] ^ bool(epoch % 2)


def trivially_augmented(pixels: Tensor, count: int, seed: int, step: int, part: slice) -> Tensor:
    """Return the `part` of a batch of `count` images, uint8 (n, H, W, 3), each after one random operation."""
    return trivial_augment(pixels, generator(seed, _TRIVIAL, step), count, part)


def colour_shifts(count: int, strength: float, seed: int, step: int) -> Tensor:
    """Return what is added to the red, green and blue of each image of a batch, as fractions of 255; (count, 3).

    Along each principal component a normal random number of standard deviation `strength` times the component's.
    """
    alphas = strength * torch.randn(count, 3, generator=generator(seed, _COLOURS, step))
    return (alphas * torch.tensor(_COLOUR_DEVIATIONS)) @ torch.tensor(_COLOUR_DIRECTIONS).T


def erased(images: Tensor, count: int, probability: float, seed: int, step: int, part: slice = _WHOLE) -> Tensor:
    """Return the `part` of a batch of `count`, (n, 3, H, W), with a rectangle of some images set to 0, the mean."""
    height, width = images.shape[2:]
    top, left, high, wide = _rectangles(count, probability, height, width, generator(seed, _ERASING, step))[:, part]
    rows, columns = torch.arange(height), torch.arange(width)
    row_inside = (rows >= top[:, None]) & (rows < (top + high)[:, None])
    column_inside = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    inside = row_inside[:, None, :, None] & column_inside[:, None, None, :]
    return images.mul(moved(inside.logical_not(), images.device))


def _rectangles(count: int, probability: float, height: int, width: int, random: torch.Generator) -> Tensor:
    """Return top, left, height and width of a rectangle in each image, int64 (4, count); of height 0 if none."""
    is_erased = torch.rand(count, generator=random) < probability
    drawn = torch.rand(4, _ERASING_TRIES, count, generator=random)
    areas = height * width * (_ERASED_AREA[0] + (_ERASED_AREA[1] - _ERASED_AREA[0]) * drawn[0])
    low, high = (math.log(ratio) for ratio in _ERASED_RATIO)
    ratios = torch.exp(low + (high - low) * drawn[1])
    highs, wides = (areas * ratios).sqrt().round().long(), (areas / ratios).sqrt().round().long()
    fits = (highs < height) & (wides < width) & is_erased
    first = fits.int().argmax(0, keepdim=True)
    highs, wides, places = (
        values.gather(-2, first.expand(*values.shape[:-2], 1, -1)).squeeze(-2) for values in (highs, wides, drawn[2:])
    )
    highs = highs * fits.any(0)
    top = (places[0] * (height - highs + 1)).long()
    left = (places[1] * (width - wides + 1)).long()
    return torch.stack((top, left, highs, wides))
