"""The conversion of pixels to a network's input, with the statistics of the training set."""

from collections.abc import Sequence

import torch
from torch import Tensor

from training.hardware.transfer import moved


class Normalize:
    """uint8 pixels (N, H, W, 3) to floats with mean 0 and standard deviation 1 in each channel, in the same order."""

    def __init__(self, mean: Sequence[float], standard_deviation: Sequence[float], device: str) -> None:
        deviation = torch.tensor(standard_deviation, device=device)
        self._scale, self._shift = 1 / (255 * deviation), -torch.tensor(mean, device=device) / deviation

    def __call__(self, images: Tensor) -> Tensor:
        return moved(images, self._scale.device).float() * self._scale + self._shift

    def difference(self, colours: Tensor) -> Tensor:
        """Return differences between colours, float (…, 3) as fractions of 255, in units of the network's input."""
        return moved(colours, self._scale.device) * self._scale * 255

    def channels_first(self, images: Tensor) -> Tensor:
        """Return the same as (N, 3, H, W), in channels-last memory order: a network's input."""
        return self(images).permute(0, 3, 1, 2)
