"""Augmentation of whole batches, as tensor operations on the device; random numbers from (seed, epoch or step) alone.

Random crops out of a padded picture and mirror images are one gather: rows and columns of each picture are index
lists, so shifting and mirroring cost no more than copying.
"""

import functools

import torch
from torch import Tensor

from training.recipe import Recipe, steps_per_epoch

# Streams of random numbers, so that order, crops and flips of the same step do not share their numbers.
_ORDER, _CROPS, _FLIPS = 1, 2, 3
_WHOLE = slice(None)


def generator(seed: int, stream: int, moment: int) -> torch.Generator:
    """Return the random numbers of one moment (an epoch or a step) of one stream of a run."""
    mixed = (seed * 1_000_003 + stream) * 1_000_000_007 + moment
    return torch.Generator().manual_seed(mixed % (2**63))


@functools.lru_cache(maxsize=2)
def batch_order(seed: int, epoch: int, images: int) -> Tensor:
    """Return the order of the training set in one epoch, int64 (images,)."""
    return torch.randperm(images, generator=generator(seed, _ORDER, epoch))


def batch_indices(seed: int, step: int, images: int, batch_size: int) -> Tensor:
    """Return the places in the training set of the pictures of one step, int64 (batch_size,)."""
    epoch, place = divmod(step, steps_per_epoch(images, batch_size))
    return batch_order(seed, epoch, images)[place * batch_size :][:batch_size]


def augment(
    images: Tensor, indices: Tensor, recipe: Recipe, seed: int, epoch: int, step: int, part: slice = _WHOLE
) -> Tensor:
    """Return cropped and mirrored pictures, float (N, 3, H, W) in channels-last order.

    `images` are normalised pictures, float (N, H, W, 3), so that the padding with zeros is the mean colour;
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
    picture = torch.arange(len(images), device=device)[:, None, None]
    cut = padded[picture, rows.to(device)[:, :, None], columns.to(device)[:, None, :]]
    return cut.permute(0, 3, 1, 2)


def _mirrored(recipe: Recipe, indices: Tensor, seed: int, epoch: int, random: torch.Generator) -> Tensor:
    """Return which pictures are mirrored, bool (N,): by chance, or every picture in every second epoch."""
    if recipe.flip == "none":
        return torch.zeros(len(indices), dtype=torch.bool)
    if recipe.flip == "random":
        return torch.rand(len(indices), generator=random) < 0.5
    first = torch.rand(int(indices.max()) + 1, generator=generator(seed, _FLIPS, 0)) < 0.5
    return first[indices] ^ bool(epoch % 2)
