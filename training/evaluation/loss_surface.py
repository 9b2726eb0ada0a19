"""The loss around the weights of a trained network, on a plane of two random directions.

Li et al. 2018, *Visualizing the loss landscape of neural nets*: each filter of a direction has the norm of the same
filter of the network, so that the surfaces of different networks can be compared. Batch norms and biases stay as they
are, with the statistics of the training.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

Direction = list[Tensor]  # one tensor for each weight of more than one dimension


def filter_normalized_direction(network: nn.Module, generator: torch.Generator) -> Direction:
    """Return a random direction; each filter, and each row of the classifier, has the norm of the network's own."""
    return [_with_norms_of(weight.detach(), generator) for weight in _weights(network)]


def _weights(network: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in network.parameters() if parameter.ndim > 1]


def _with_norms_of(weight: Tensor, generator: torch.Generator) -> Tensor:
    direction = torch.randn(weight.shape, generator=generator)
    places = tuple(range(1, weight.ndim))
    norms: Tensor = torch.linalg.vector_norm(direction, dim=places, keepdim=True)
    own: Tensor = torch.linalg.vector_norm(weight, dim=places, keepdim=True)
    scaled: Tensor = direction * (own / norms.clamp_min(torch.finfo(direction.dtype).tiny))
    return scaled


def coordinates(points: int, reach: float) -> list[float]:
    """Return `points` coordinates from -reach to reach. Raises ValueError unless the number is odd and above 1."""
    if points < 3 or points % 2 == 0:
        raise ValueError(
            f"the number of points a side is {points}; give an odd one, at least 3, to include the weights"
        )
    return [round(float(value), 4) for value in np.linspace(-reach, reach, points)]


@torch.inference_mode()
def loss_surface(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    places: list[float],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> list[list[float]]:
    """Return the mean cross-entropy at w + x a + y b: a row for each y and a column for each x of `places`.

    `images` are normalized (N, 3, H, W), `labels` int64 (N,). The network is put in evaluation mode; its weights are
    afterwards the same as before.
    """
    network.eval()
    generator = torch.Generator().manual_seed(seed)
    first, second = (filter_normalized_direction(network, generator) for _ in range(2))
    weights = _weights(network)
    own = [weight.detach().clone() for weight in weights]
    rows = []
    try:
        for number, y in enumerate(places):
            row = []
            for x in places:
                for weight, start, a, b in zip(weights, own, first, second, strict=True):
                    weight.copy_(start + x * a + y * b)
                row.append(float(F.cross_entropy(network(images), labels)))
            rows.append(row)
            progress(number + 1, len(places))
    finally:
        for weight, start in zip(weights, own, strict=True):
            weight.copy_(start)
    return rows
