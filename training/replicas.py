"""The gradients of a batch, computed in equal parts: one part for each core of a CPU, each GPU, each micro-batch.

Two threads that each run half a batch meet once a step; two threads that share every layer meet hundreds of times,
and lose most of their speed as soon as anything else wants a core. The mathematics is that of data-parallel training:
each part has its own batch-norm statistics (as each GPU had in the paper), gradients and running statistics are
averaged, always in the same order, so that a run can be repeated to the bit. It does not matter whether the parts are
computed side by side, one after the other, or by several processes.
"""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from training.batch import Batch
from training.distributed import World
from training.finetune import learning, set_training_mode
from training.hardware import Hardware
from training.recorded import Recorder, Result
from training.signals import Stop, Stopped

_SECONDS_BETWEEN_LOOKS = 1.0  # at whether the step is to be left
Scale = Callable[[Tensor], Tensor]


class Replicas:
    """Copies of a network that share its weights but have batch-norm statistics of their own.

    The network's own statistics change only when a step is complete, so a step can be left at any moment.
    """

    def __init__(self, model: nn.Module, hardware: Hardware, world: World, stop: Stop | None = None) -> None:
        self._hardware = hardware
        self._world = world
        self._stop = stop or Stop()
        self._modules = [_copy_sharing_weights(model) for _ in range(hardware.replicas)]
        self._networks = [torch.compile(module) if hardware.compiled else module for module in self._modules]
        self._parameters = learning(model)
        self._own = _own_buffers(model)  # they change in place, as do those of the copies
        self._buffers = [_own_buffers(module) for module in self._modules]
        self._statistics = [statistics_of(module) for module in self._modules]
        self._recorder = Recorder(self._gradients_of_first, self._buffers[0]) if hardware.recorded else None
        self._pool = ThreadPoolExecutor(hardware.replicas)

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

        `batch` is this process's part of one of `whole` pictures; the gradients and what comes back are of the whole.
        `scale` enlarges losses before they are differentiated, and so the gradients: float16 would lose small ones.
        On a CPU raises Stopped if the process is to end and the step takes too long; then nothing has changed.
        """
        for module in self._modules:
            set_training_mode(module)
        replicas = len(self._modules) if len(batch.labels) >= 2 * len(self._modules) else 1
        gradients: list[Tensor] = []
        numbers = torch.zeros(3, device=batch.labels.device)
        for micro_batch in batch.split(micro_batches):
            parts = micro_batch.split(replicas)
            if self._recorder and not scale:
                results = [self._recorder(parts[0], label_smoothing)]
            else:
                futures = [
                    self._pool.submit(self._gradients, replica, part, label_smoothing, scale)
                    for replica, part in enumerate(parts)
                ]
                results = self._results(futures)
            for part, (part_gradients, part_numbers) in zip(parts, results, strict=True):
                weight = len(part.labels) * self._world.size / whole
                scaled = list(torch._foreach_mul(part_gradients, weight))
                gradients = [a.add_(b) for a, b in zip(gradients, scaled, strict=True)] if gradients else scaled
                numbers += weight * part_numbers
        self._average_statistics(replicas)
        self._world.average([*gradients, numbers, *self._statistics[0]])
        torch._foreach_copy_(self._own, self._buffers[0])
        self.share_statistics()
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        return numbers

    def _results(self, futures: Sequence["Future[Result]"]) -> list[Result]:
        while wait(futures, _SECONDS_BETWEEN_LOOKS).not_done:
            if self._stop.is_overdue():
                raise Stopped
        return [future.result() for future in futures]

    def _gradients_of_first(self, part: Batch, label_smoothing: float) -> Result:
        return self._gradients(0, part, label_smoothing, None)

    def _gradients(self, replica: int, part: Batch, label_smoothing: float, scale: Scale | None) -> Result:
        with self._hardware.autocast():
            logits = self._networks[replica](part.images)
        loss = part.loss(logits.float(), label_smoothing)
        gradients = torch.autograd.grad(scale(loss) if scale else loss, self._parameters)
        error = 100 * (logits.detach().argmax(1) != part.labels).float().mean()
        return list(gradients), torch.stack((loss.detach(), error, torch.ones_like(error)))

    def _average_statistics(self, replicas: int) -> None:
        own, *others = self._statistics[:replicas]
        for other in others:
            torch._foreach_add_(own, other)
        torch._foreach_div_(own, replicas)

    def share_statistics(self) -> None:
        """Give the copies the batch-norm statistics of the network itself."""
        for buffers in self._buffers:
            torch._foreach_copy_(buffers, self._own)


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a network, in order."""
    return [inner for inner in module.modules() if isinstance(inner, _BatchNorm)]


def statistics_of(module: nn.Module) -> list[Tensor]:
    """Return the running means and variances of a network, as live tensors."""
    found = [statistic for norm in batch_norms(module) for statistic in (norm.running_mean, norm.running_var)]
    return [statistic for statistic in found if statistic is not None]


def _own_buffers(module: nn.Module) -> list[Tensor]:
    """Return what batch norms change in training: statistics, and how many batches they have seen."""
    counts = [norm.num_batches_tracked for norm in batch_norms(module) if norm.num_batches_tracked is not None]
    return [*statistics_of(module), *counts]


def _copy_sharing_weights(model: nn.Module) -> nn.Module:
    own = {id(buffer) for buffer in _own_buffers(model)}
    shared = [*model.parameters(), *(buffer for buffer in model.buffers() if id(buffer) not in own)]
    # Handing deepcopy tensors as already copied makes the copy refer to the same ones.
    return copy.deepcopy(model, {id(tensor): tensor for tensor in shared})
