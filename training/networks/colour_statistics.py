"""Means and standard deviations of the data sets that the two families of networks were made for.

They stand in for the statistics of weights that come without any. A run measures those of its own images
(`training.data.channel_statistics`).
"""

from dataclasses import dataclass

from training.networks.resnet import Architecture

Channels = tuple[float, float, float]  # red, green, blue


@dataclass(frozen=True, slots=True)
class ColourStatistics:
    """Mean and standard deviation of each channel of a data set, as fractions of 255."""

    mean: Channels
    standard_deviation: Channels


# What torchvision, timm and Hugging Face have published ImageNet weights with.
IMAGENET = ColourStatistics((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Of the 50,000 training images, rounded as in most published code.
CIFAR10 = ColourStatistics((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def usual_colour_statistics(network: Architecture) -> ColourStatistics:
    """Return the statistics of the data set that a network's family was made for."""
    return IMAGENET if network.imagenet else CIFAR10
