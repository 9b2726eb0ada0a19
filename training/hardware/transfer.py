"""Tensors on their way to the device, without waiting for what the device is doing."""

import torch
from torch import Tensor


def moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Return a tensor on the device; a GPU fetches it when it gets there, while the CPU prepares what comes next."""
    if torch.device(device).type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
