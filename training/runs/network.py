"""The network that a run trains, before it has weights."""

from typing import cast

import torch
from torch import Tensor, nn

from training.data.channel_statistics import Statistics
from training.data.crops import CropSpec
from training.data.normalization import Normalize
from training.networks.resnet import ResNet, build, zero_init_residual
from training.recipes.recipe import Recipe
from training.runs.options import RunError
from training.trainer.fine_tuning import freeze


def new_network(recipe: Recipe, classes: int) -> ResNet:
    """Return a network with random weights, with the frozen stages and the SyncBN of the recipe. Raises RunError."""
    model = build(
        recipe.network,
        num_classes=classes,
        shortcut=recipe.shortcut,
        stride_in=recipe.stride_in,
        stem=recipe.stem,
    )
    try:
        if recipe.zero_init_residual:
            zero_init_residual(model)
        freeze(model, recipe.freeze)
    except ValueError as error:
        raise RunError(str(error)) from None
    if recipe.sync_bn:
        return cast(ResNet, nn.SyncBatchNorm.convert_sync_batchnorm(model))  # type: ignore[no-untyped-call]
    return model


def pixel_mean(recipe: Recipe, tested: CropSpec, statistics: Statistics, normalize: Normalize) -> Tensor:
    """Return the mean image of the training set as the network's input, float32 (3, H, W).

    Raises RunError for a recipe whose images have several sizes, as the mean image has one.
    """
    if recipe.progressive_sizes:
        raise RunError("a mean image has one size: add --set subtract=channel_mean, or --set progressive_sizes=[]")
    if recipe.image_size != tested.size:
        raise RunError(
            f"a mean image of {tested.size} pixels cannot be subtracted from images of {recipe.image_size}; "
            "add --set subtract=channel_mean, or train and test at one size"
        )
    return normalize(torch.from_numpy(statistics.mean_image)).permute(2, 0, 1).contiguous()
