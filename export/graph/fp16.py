"""fp16: half-precision weights and activations between float32 inputs and outputs, for processors that compute in fp16.

The network itself is converted and traced, so that no pass over the graph has to place casts. A CPU computes mostly in
float32 between its own casts, and does not overflow. The range of every activation is therefore measured here.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from export.errors import ExportError
from export.graph.to_onnx import Normalize
from service.images.preprocessing import Pixels
from service.model_files.card import Preprocessing
from training.networks.resnet import ResNet

LARGEST_ACTIVATION = 32_000  # fp16 ends at 65,504; other images may have larger values than the measured ones
_BATCH = 8  # images whose activations are checked at once


def to_half(network: ResNet, preprocessing: Preprocessing, pixels: Pixels) -> ResNet:
    """Return a deployable network in half precision.

    Raises ExportError if a weight, or an activation on these images, uint8 (N, H, W, 3), exceeds 32,000.
    """
    largest = largest_value(network, preprocessing, pixels)
    if not largest <= LARGEST_ACTIVATION:
        raise ExportError(
            f"a value inside the network reaches {largest:,.0f}, and fp16 is safe up to {LARGEST_ACTIVATION:,}; "
            "nothing was written. Use --precision fp32 or int8"
        )
    return copy.deepcopy(network).half()


@torch.inference_mode()
def largest_value(network: ResNet, preprocessing: Preprocessing, pixels: Pixels) -> float:
    """Return the largest absolute value of all weights, and of all activations on images uint8 (N, H, W, 3)."""
    normalize = Normalize(preprocessing)
    largest = max(float(weight.abs().max()) for weight in network.parameters())
    for start in range(0, len(pixels), _BATCH):
        images = normalize(torch.from_numpy(pixels[start : start + _BATCH].copy()))
        with _Watching() as watching:
            network(images)
        largest = max(largest, watching.largest)
    return largest


class _Watching(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Observes the result of every operation, including the sums before an activation."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest = 0.0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point():
            # Not a number counts as too large, whichever side of the comparison it is on.
            self.largest = max(self.largest, float(result.abs().max().nan_to_num(nan=float("inf"))))
        return result
