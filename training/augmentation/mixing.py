"""The input of the network: augmented images and their labels, mixed if the recipe has mixup or cutmix.

Mixup (Zhang et al. 2018) blends each image with another one of its batch, cutmix (Yun et al. 2019) pastes a window of
the other one into it; the loss is shared between the two labels by the same amount.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.recipes.recipe import Recipe

_MIXING = 4  # its stream of random numbers, apart from those of training.augmentation.batch_transforms


@dataclass(frozen=True, slots=True)
class Batch:
    """Images float (N, 3, H, W), their labels int64 (N,), and the labels of what was mixed in, with their share.

    `class_weights` (classes,) say how much the images of a class count; None: all count as one.
    """

    images: Tensor
    labels: Tensor
    others: Tensor | None = None
    others_share: float | Tensor = 0.0  # 0…1, of the loss
    class_weights: Tensor | None = None

    def split(self, parts: int) -> list["Batch"]:
        """Return the batch in so many parts of nearly equal size."""
        images, labels = self.images.tensor_split(parts), self.labels.tensor_split(parts)
        others = [None] * parts if self.others is None else self.others.tensor_split(parts)
        parts_of_all = zip(images, labels, others, strict=True)
        return [Batch(*part, self.others_share, self.class_weights) for part in parts_of_all]

    def loss(self, logits: Tensor, label_smoothing: float) -> Tensor:
        """Return the mean cross-entropy of logits (N, classes)."""
        loss = self._cross_entropy(logits, self.labels, label_smoothing)
        if self.others is None:
            return loss
        other = self._cross_entropy(logits, self.others, label_smoothing)
        return (1 - self.others_share) * loss + self.others_share * other

    def _cross_entropy(self, logits: Tensor, labels: Tensor, label_smoothing: float) -> Tensor:
        if self.class_weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=label_smoothing)
        # A sum over images, not over weights, is what it divides by: then the parts of a batch add up to the whole.
        weighted = F.cross_entropy(
            logits, labels, self.class_weights, label_smoothing=label_smoothing, reduction="none"
        )
        return weighted.mean()


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return weights, float32 (classes,), with which all classes count equally; 1 on average over the images."""
    counts = torch.bincount(labels.cpu(), minlength=num_classes)
    return (len(labels) / (num_classes * counts.clamp(min=1))).float().to(labels.device)


def mixed(images: Tensor, labels: Tensor, recipe: Recipe, seed: int, step: int) -> Batch:
    """Return the batch of one step; with both mixup and cutmix in the recipe, chance decides between them.

    `images` are float (N, 3, H, W), `labels` int64 (N,).
    """
    random = np.random.default_rng((seed, _MIXING, step))
    kinds = [kind for kind, alpha in (("mixup", recipe.mixup), ("cutmix", recipe.cutmix)) if alpha > 0]
    if not kinds:
        return Batch(images, labels)
    if kinds[random.integers(len(kinds))] == "mixup":
        share = float(random.beta(recipe.mixup, recipe.mixup))
        return Batch(torch.lerp(images, images.flip(0), share), labels, labels.flip(0), share)
    height, width = images.shape[2:]
    side = float(random.beta(recipe.cutmix, recipe.cutmix)) ** 0.5  # of the window, as a share of the image's
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
