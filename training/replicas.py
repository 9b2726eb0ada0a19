"""The gradients of a batch, computed in equal parts: one part for each core of a CPU, each GPU, each micro-batch.

Two threads that each run half a batch meet once a step; two threads that share every layer meet hundreds of times,
and lose most of their speed as soon as anything else wants a core. The mathematics is that of data-parallel training:
each part has its own batch-norm statistics (as each GPU had in the paper), gradients and running statistics are
averaged, always in the same order, so that a run can be repeated to the bit. It does not matter whether the parts are
computed side by side, one after the other, or by several processes.
"""

import copy
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from training.batch import Batch
from training.distributed import World
from training.finetune import learning, set_training_mode
from training.hardware import Hardware


class Replicas:
    """A network, and copies of it that share its weights but have batch-norm statistics of their own."""

    def __init__(self, model: nn.Module, hardware: Hardware, world: World) -> None:
        self._hardware = hardware
        self._world = world
        self._modules = [model, *(_copy_sharing_weights(model) for _ in range(hardware.replicas - 1))]
        self._networks = [torch.compile(module) if hardware.compiled else module for module in self._modules]
        self._parameters = learning(model)
        self._statistics = [_statistics(module) for module in self._modules]  # they change in place
        self._pool = ThreadPoolExecutor(hardware.replicas)

    def compute_gradients(
        self, batch: Batch, *, whole: int, micro_batches: int = 1, label_smoothing: float = 0.0
    ) -> Tensor:
        """Set the gradients of the mean loss of a batch; return its loss, its error in percent, and 1, as (3,).

        `batch` is this process's part of one of `whole` pictures; the gradients and what comes back are of the whole.
        """
        for module in self._modules:
            set_training_mode(module)
        replicas = len(self._modules) if len(batch.labels) >= 2 * len(self._modules) else 1
        gradients: list[Tensor] = []
        numbers = torch.zeros(3, device=batch.labels.device)
        for micro_batch in batch.split(micro_batches):
            parts = micro_batch.split(replicas)
            results = self._pool.map(self._gradients, range(replicas), parts, [label_smoothing] * replicas)
            for part, (part_gradients, part_numbers) in zip(parts, results, strict=True):
                weight = len(part.labels) * self._world.size / whole
                scaled = list(torch._foreach_mul(part_gradients, weight))
                gradients = [a.add_(b) for a, b in zip(gradients, scaled, strict=True)] if gradients else scaled
                numbers += weight * part_numbers
        self._average_statistics(replicas)
        self._world.average([*gradients, numbers, *self._statistics[0]])
        self.share_statistics()
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return numbers

    def _gradients(self, replica: int, part: Batch, label_smoothing: float) -> tuple[list[Tensor], Tensor]:
        with self._hardware.autocast():
            logits = self._networks[replica](part.images)
        loss = part.loss(logits.float(), label_smoothing)
        gradients = torch.autograd.grad(loss, self._parameters)
        error = 100 * (logits.detach().argmax(1) != part.labels).float().mean()
        return list(gradients), torch.stack((loss.detach(), error, torch.ones_like(error)))

    def _average_statistics(self, replicas: int) -> None:
        own, *others = self._statistics[:replicas]
        for other in others:
            torch._foreach_add_(own, other)
        torch._foreach_div_(own, replicas)

    def share_statistics(self) -> None:
        """Give the copies the batch-norm statistics of the network itself."""
        for other in self._statistics[1:]:
            torch._foreach_copy_(other, self._statistics[0])


def _statistics(module: nn.Module) -> list[Tensor]:
    norms = [inner for inner in module.modules() if isinstance(inner, nn.modules.batchnorm._BatchNorm)]
    found = [statistic for norm in norms for statistic in (norm.running_mean, norm.running_var)]
    return [statistic for statistic in found if statistic is not None]


def _copy_sharing_weights(model: nn.Module) -> nn.Module:
    # Handing deepcopy the weights as already copied makes the copy refer to the same ones.
    return copy.deepcopy(model, {id(parameter): parameter for parameter in model.parameters()})
