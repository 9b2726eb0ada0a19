"""The gradients of a batch, computed in equal parts: the recipe's batch-norm groups, GPUs and micro-batches.

Two threads that each run half a batch synchronize once a step; two threads that share every layer do so hundreds of
times, and lose most of their speed as soon as another process needs a core. The mathematics is that of data-parallel
training: each part has its own batch-norm statistics (as each GPU had in the paper), gradients and running statistics
are averaged, always in the same order, so that a run can be repeated to the bit. The number of parts follows from the
recipe (`Recipe.norm_batch`), never from the number of cores. It does not matter whether the parts are computed at the
same time, one after the other, or by several processes. On a GPU, recorded parts update one copy's running statistics
one after the other.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from training.augmentation.mixing import Batch
from training.hardware.devices import Hardware
from training.hardware.process_group import World
from training.trainer.cuda_graphs import CudaGraphStep, Result
from training.trainer.fine_tuning import learning, set_training_mode
from training.trainer.interrupts import Stop, Stopped

_SECONDS_BETWEEN_CHECKS = 1.0  # of a request to abandon the step
Scale = Callable[[Tensor], Tensor]


class ParallelGradients:
    """Copies of a network that share its weights but have batch-norm statistics of their own.

    The network's own statistics change only when a step is complete, so a step can be abandoned at any moment.
    """

    def __init__(
        self, model: nn.Module, hardware: Hardware, world: World, stop: Stop | None = None, *, parts: int = 1
    ) -> None:
        """`parts` is the number of batch-norm groups of a batch, or of each of its micro-batches."""
        self._hardware = hardware
        self._world = world
        self._stop = stop or Stop()
        self._modules = [_copy_sharing_weights(model) for _ in range(1 if hardware.recorded else parts)]
        self._networks = [torch.compile(module) if hardware.compiled else module for module in self._modules]
        self._parameters = learning(model)
        self._own = _own_buffers(model)  # changed in place, like those of the copies
        self._buffers = [_own_buffers(module) for module in self._modules]
        self._statistics = [statistics_of(module) for module in self._modules]
        self._recorder = CudaGraphStep(self._gradients_of_first, self._buffers[0]) if hardware.recorded else None
        self._parts = parts
        self._pool = hardware.pool(parts)

    def compute_gradients(
        self,
        batch: Batch,
        *,
        whole: int,
        micro_batches: int = 1,
        label_smoothing: float = 0.0,
        scale: Scale | None = None,
    ) -> Tensor:
        """Set the gradients of the mean loss of a batch; return its loss, its error in percent, and 1, as (3,).

        `batch` is this process's part of a batch of `whole` images. Gradients and returned numbers are of the whole.
        `scale` multiplies losses before they are differentiated, and so the gradients: float16 would lose small ones.
        On a CPU raises Stopped if the process has to end and the step takes too long. The model is then unchanged.
        """
        for module in self._modules:
            set_training_mode(module)
        parts_of_each = self._parts if len(batch.labels) >= 2 * self._parts * micro_batches else 1
        gradients, numbers = self._summed(batch, whole, micro_batches, parts_of_each, label_smoothing, scale)
        self._average_statistics(min(parts_of_each, len(self._modules)))
        self._world.average([*gradients, numbers, *self._statistics[0]])
        torch._foreach_copy_(self._own, self._buffers[0])
        self.share_statistics()
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return numbers

    def _summed(
        self,
        batch: Batch,
        whole: int,
        micro_batches: int,
        parts_of_each: int,
        label_smoothing: float,
        scale: Scale | None,
    ) -> tuple[list[Tensor], Tensor]:
        """Return the gradients and numbers of this process's part, summed over micro-batches and their parts."""
        gradients: list[Tensor] = []
        numbers = torch.zeros(3, device=batch.labels.device)
        for micro_batch in batch.split(micro_batches):
            parts = micro_batch.split(parts_of_each)
            weights = [len(part.labels) * self._world.size / whole for part in parts]
            results = self._results_of(parts, weights, label_smoothing, scale)
            for weight, (part_gradients, part_numbers) in zip(weights, results, strict=True):
                if gradients:
                    torch._foreach_add_(gradients, part_gradients)
                elif self._recorder and len(parts) * micro_batches > 1:
                    gradients = [gradient.clone() for gradient in part_gradients]  # the next replay overwrites them
                else:
                    gradients = part_gradients
                numbers += weight * part_numbers
        return gradients, numbers

    def _results_of(
        self, parts: Sequence[Batch], weights: Sequence[float], label_smoothing: float, scale: Scale | None
    ) -> Iterable[Result]:
        """Return the results of the parts, in order; a recorded one is valid until the next is computed."""
        if self._recorder:
            compute = self._recorder
            return (compute(part, weight, label_smoothing) for part, weight in zip(parts, weights, strict=True))
        return self._results(
            [
                self._pool.submit(self._gradients, replica, part, weight, label_smoothing, scale)
                for replica, (part, weight) in enumerate(zip(parts, weights, strict=True))
            ]
        )

    def _results(self, futures: Sequence["Future[Result]"]) -> list[Result]:
        while wait(futures, _SECONDS_BETWEEN_CHECKS).not_done:
            if self._stop.is_overdue():
                raise Stopped
        return [future.result() for future in futures]

    def _gradients_of_first(self, part: Batch, weight: float, label_smoothing: float) -> Result:
        return self._gradients(0, part, weight, label_smoothing, None)

    def _gradients(
        self, replica: int, part: Batch, weight: float, label_smoothing: float, scale: Scale | None
    ) -> Result:
        """Return the gradients of the part's mean loss times `weight`, and the loss and error without it."""
        with self._hardware.autocast():
            logits = self._networks[replica](part.images)
        loss = part.loss(logits.float(), label_smoothing)
        weighted = loss * weight
        gradients = torch.autograd.grad(scale(weighted) if scale else weighted, self._parameters)
        error = 100 * (logits.detach().argmax(1) != part.labels).float().mean()
        return list(gradients), torch.stack((loss.detach(), error, torch.ones_like(error)))

    def _average_statistics(self, replicas: int) -> None:
        own, *others = self._statistics[:replicas]
        for other in others:
            torch._foreach_add_(own, other)
        torch._foreach_div_(own, replicas)

    def share_statistics(self) -> None:
        """Copy the network's batch-norm statistics to the copies."""
        for buffers in self._buffers:
            torch._foreach_copy_(buffers, self._own)


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a network, in order."""
    return [inner for inner in module.modules() if isinstance(inner, _BatchNorm)]


def statistics_of(module: nn.Module) -> list[Tensor]:
    """Return the running means and variances of a network, float32 (channels,), as live tensors."""
    found = [statistic for norm in batch_norms(module) for statistic in (norm.running_mean, norm.running_var)]
    return [statistic for statistic in found if statistic is not None]


def _own_buffers(module: nn.Module) -> list[Tensor]:
    """Return the buffers that batch norms change in training: statistics, and counts of batches."""
    counts = [norm.num_batches_tracked for norm in batch_norms(module) if norm.num_batches_tracked is not None]
    return [*statistics_of(module), *counts]


def _copy_sharing_weights(model: nn.Module) -> nn.Module:
    own = {id(buffer) for buffer in _own_buffers(model)}
    shared = [*model.parameters(), *(buffer for buffer in model.buffers() if id(buffer) not in own)]
    # Tensors that deepcopy takes for already copied are shared with the copy.
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
