"""How good a network is: errors, calibration, and the temperature that mends it.

Every picture counts once. Calibration follows Guo et al. 2017, *On calibration of modern neural networks*: one
temperature on held-out logits, and the expected calibration error over 15 bins of confidence.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

_BINS = 15


@dataclass(frozen=True, slots=True)
class Errors:
    """Top-1 and top-5 error in percent, mean cross-entropy, over so many pictures."""

    top1: float
    top5: float
    loss: float
    images: int


@dataclass(frozen=True, slots=True)
class TemperatureFit:
    """The temperature that minimises the cross-entropy of held-out pictures, and the calibration error with it."""

    temperature: float
    expected_calibration_error: float
    expected_calibration_error_before: float  # with temperature 1
    images: int


@torch.inference_mode()
def logits_of(
    model: nn.Module, images: NDArray[np.uint8], to_input: Callable[[Tensor], Tensor], batch_size: int = 500
) -> Tensor:
    """Return the logits, float32 (N, classes), of uint8 pictures (N, H, W, 3); the model is put in evaluation mode.

    `to_input` turns a batch of pictures into what the network takes: normalised, (N, 3, H, W).
    """
    model.eval()
    parts = []
    for start in range(0, len(images), batch_size):
        batch = torch.from_numpy(np.array(images[start : start + batch_size]))
        parts.append(model(to_input(batch)).float().cpu())
    return torch.cat(parts)


def errors_of(logits: Tensor, labels: Tensor) -> Errors:
    """Compare logits (N, classes) with labels int64 (N,)."""
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    right = best == labels[:, None]
    return Errors(
        top1=100 * (1 - right[:, 0].float().mean().item()),
        top5=100 * (1 - right.any(dim=1).float().mean().item()),
        loss=F.cross_entropy(logits, labels).item(),
        images=len(labels),
    )


def expected_calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the mean gap between confidence and accuracy over equal bins of confidence, weighted by their pictures."""
    confidence, chosen = probabilities.max(dim=1)
    right = (chosen == labels).float()
    bins = (confidence * _BINS).long().clamp(max=_BINS - 1)
    gaps = torch.zeros(_BINS).index_add_(0, bins, right - confidence)
    return (gaps.abs().sum() / len(labels)).item()


def fit_temperature(logits: Tensor, labels: Tensor) -> TemperatureFit:
    """Return the temperature in 0.05…20 that minimises the cross-entropy, found by golden-section search."""
    logits = logits.double()

    def loss(log_temperature: float) -> float:
        return F.cross_entropy(logits / np.exp(log_temperature), labels).item()

    ratio = (5**0.5 - 1) / 2
    low, high = np.log(0.05), np.log(20.0)
    while high - low > 1e-6:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    temperature = float(np.exp((low + high) / 2))
    return TemperatureFit(
        temperature=temperature,
        expected_calibration_error=expected_calibration_error((logits / temperature).softmax(1).float(), labels),
        expected_calibration_error_before=expected_calibration_error(logits.softmax(1).float(), labels),
        images=len(labels),
    )
