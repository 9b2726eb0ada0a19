"""A batch on its way into the network: augmented pictures and what they should be called, mixed where a recipe says so.

Mixup (Zhang et al. 2018) blends each picture with another one of its batch, cutmix (Yun et al. 2019) pastes a window of
the other one into it; the loss is shared between the two labels by the same amount.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.recipe import Recipe

_MIXING = 4  # its stream of random numbers, apart from those of training.augment


@dataclass(frozen=True, slots=True)
class Batch:
    """Pictures float (N, 3, H, W), their labels int64 (N,), and the labels of what was mixed in, with their share."""

    images: Tensor
    labels: Tensor
    others: Tensor | None = None
    others_share: float = 0.0  # 0…1, of the loss

    def split(self, parts: int) -> list["Batch"]:
        """Return the batch in so many parts of nearly equal size."""
        images, labels = self.images.tensor_split(parts), self.labels.tensor_split(parts)
        others = [None] * parts if self.others is None else self.others.tensor_split(parts)
        return [Batch(*part, self.others_share) for part in zip(images, labels, others, strict=True)]

    def loss(self, logits: Tensor, label_smoothing: float) -> Tensor:
        """Return the mean cross-entropy of logits (N, classes)."""
        loss = F.cross_entropy(logits, self.labels, label_smoothing=label_smoothing)
        if self.others is None:
            return loss
        other = F.cross_entropy(logits, self.others, label_smoothing=label_smoothing)
        return (1 - self.others_share) * loss + self.others_share * other


def mixed(images: Tensor, labels: Tensor, recipe: Recipe, seed: int, step: int) -> Batch:
    """Return the batch of one step; with both mixup and cutmix in the recipe, chance decides between them."""
    random = np.random.default_rng((seed, _MIXING, step))
    kinds = [kind for kind, alpha in (("mixup", recipe.mixup), ("cutmix", recipe.cutmix)) if alpha > 0]
    if not kinds:
        return Batch(images, labels)
    if kinds[random.integers(len(kinds))] == "mixup":
        share = float(random.beta(recipe.mixup, recipe.mixup))
        return Batch(torch.lerp(images, images.flip(0), share), labels, labels.flip(0), share)
    height, width = images.shape[2:]
    side = float(random.beta(recipe.cutmix, recipe.cutmix)) ** 0.5  # of the window, as a share of the picture's
    row, column = int(random.integers(height)), int(random.integers(width))
    top, bottom = _window(row, side, height)
    left, right = _window(column, side, width)
    pasted = images.clone()
    pasted[:, :, top:bottom, left:right] = images.flip(0)[:, :, top:bottom, left:right]
    share = (bottom - top) * (right - left) / (height * width)
    return Batch(pasted, labels, labels.flip(0), share)


def _window(centre: int, share: float, length: int) -> tuple[int, int]:
    half = int(share * length) // 2
    return max(0, centre - half), min(length, centre + half)
