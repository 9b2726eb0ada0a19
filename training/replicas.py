"""The gradients of a batch, computed in equal parts side by side: one part for each core of a CPU.

Two threads that each run half a batch meet once a step; two threads that share every layer meet hundreds of times,
and lose most of their speed as soon as anything else wants a core. The mathematics is that of data-parallel training:
each part has its own batch-norm statistics (as each GPU had in the paper), gradients and running statistics are
averaged, always in the same order, so that a run can be repeated to the bit.
"""

import copy
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.hardware import Hardware


class Replicas:
    """A network, and copies of it that share its weights but have batch-norm statistics of their own."""

    def __init__(self, model: nn.Module, hardware: Hardware) -> None:
        self._hardware = hardware
        self._modules = [model, *(_copy_sharing_weights(model) for _ in range(hardware.replicas - 1))]
        self._networks = [torch.compile(module) if hardware.compiled else module for module in self._modules]
        self._parameters = list(model.parameters())
        self._pool = ThreadPoolExecutor(hardware.replicas)

    def compute_gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        """Set the gradients of the mean loss of a batch; return its loss, its error in percent, and 1, as (3,)."""
        count = len(self._networks)
        for module in self._modules:
            module.train()
        if count == 1 or len(labels) < 2 * count:
            parts = [self._gradients(0, images, labels)]
        else:
            jobs = zip(range(count), images.tensor_split(count), labels.tensor_split(count), strict=True)
            parts = list(self._pool.map(lambda job: self._gradients(*job), jobs))
        total = [list(gradients) for gradients, _ in parts]
        for gradients in total[1:]:
            torch._foreach_add_(total[0], gradients)
        for parameter, gradient in zip(self._parameters, total[0], strict=True):
            parameter.grad = gradient.div_(len(parts))
        if len(parts) > 1:
            self._average_statistics()
        return torch.stack([numbers for _, numbers in parts]).mean(0)

    def _gradients(self, replica: int, images: Tensor, labels: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        with self._hardware.autocast():
            logits = self._networks[replica](images)
        loss = F.cross_entropy(logits.float(), labels)
        gradients = torch.autograd.grad(loss, list(self._modules[replica].parameters()))
        error = 100 * (logits.detach().argmax(1) != labels).float().mean()
        return gradients, torch.stack((loss.detach(), error, torch.ones_like(error)))

    def _average_statistics(self) -> None:
        statistics = [_statistics(module) for module in self._modules]
        for other in statistics[1:]:
            torch._foreach_add_(statistics[0], other)
        torch._foreach_div_(statistics[0], len(statistics))
        self.share_statistics()

    def share_statistics(self) -> None:
        """Give the copies the batch-norm statistics of the network itself."""
        for module in self._modules[1:]:
            torch._foreach_copy_(_statistics(module), _statistics(self._modules[0]))


def _statistics(module: nn.Module) -> list[Tensor]:
    return [buffer for buffer in module.buffers() if buffer.is_floating_point()]


def _copy_sharing_weights(model: nn.Module) -> nn.Module:
    # Handing deepcopy the weights as already copied makes the copy refer to the same ones.
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
