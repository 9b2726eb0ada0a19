"""Precise batch-norm statistics: after training, the averages over many training batches.

The paper's networks were tested with such averages (the notes on its authors' published models say so), not with the
moving averages of the training, which lag behind the weights and depend mostly on the last few batches.
"""

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from training.hardware.devices import Hardware
from training.hardware.process_group import World
from training.trainer.fine_tuning import set_training_mode
from training.trainer.gradients import batch_norms, statistics_of


def make_statistics_precise(model: nn.Module, parts: Iterator[Tensor], hardware: Hardware, world: World) -> None:
    """Replace the model's running statistics by the means over `parts`, each the input (N, 3, H, W) of one pass.

    Each thread passes a share of the parts through its own copy of the network. The parts of all processes have the
    same weight.
    """
    copies = [_averaging_copy(model) for _ in range(hardware.evaluation_threads)]
    pool = hardware.pool(len(copies))
    try:
        passed = [0] * len(copies)
        for batch in _in_groups(parts, len(copies)):
            list(pool.map(_pass_through(hardware), copies, batch))
            for index in range(len(batch)):
                passed[index] += 1
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    shares = [count / sum(passed) for count in passed]
    for target, *averages in zip(statistics_of(model), *map(statistics_of, copies), strict=True):
        target.copy_(sum(share * average for share, average in zip(shares, averages, strict=True)))
    world.average(statistics_of(model))


def _averaging_copy(model: nn.Module) -> nn.Module:
    duplicate = copy.deepcopy(model)
    set_training_mode(duplicate)
    for norm in (norm for norm in batch_norms(duplicate) if norm.training):  # a frozen part keeps its statistics
        norm.reset_running_stats()
        norm.momentum = None  # in PyTorch: the plain average of all batches
    return duplicate


def _in_groups(parts: Iterator[Tensor], size: int) -> Iterator[list[Tensor]]:
    group: list[Tensor] = []
    for part in parts:
        group.append(part)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _pass_through(hardware: Hardware) -> Callable[[nn.Module, Tensor], None]:
    def pass_through(model: nn.Module, images: Tensor) -> None:
        with torch.no_grad(), hardware.autocast():
            model(images)

    return pass_through
