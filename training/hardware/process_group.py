"""Several processes that train one network together, started by `torchrun`; a single process is a world of one.

Every process computes its part of each batch; gradients, statistics and losses are averaged in one message a step.
Only the first process evaluates what is written, writes and logs.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor


@dataclass(frozen=True, slots=True)
class World:
    """The rank of this process, and the number of processes."""

    rank: int = 0
    size: int = 1
    local_size: int = 1  # on this machine

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Return this process's part of `count` things in a row, nearly equal to the others'."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, float of any shape, by its mean over the processes, in place."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        means = torch.split(flat / self.size, [tensor.numel() for tensor in tensors])
        for tensor, mean in zip(tensors, means, strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def mean(self, value: float) -> float:
        """Return the mean of a number over the processes, the same in all of them."""
        tensor = torch.tensor(value, device="cuda" if self.size > 1 and torch.cuda.is_available() else "cpu")
        self.average([tensor])
        return float(tensor)

    def any(self, condition: bool) -> bool:
        """Return whether it is true in any process, so that all do the same."""
        return self.mean(float(condition)) > 0

    def join_rows(self, rows: Tensor, count: int) -> Tensor:
        """Return the rows (count, …) of which each process has its `part`, in order, in every process."""
        if self.size == 1:
            return rows
        sizes = [World(rank, self.size).part(count) for rank in range(self.size)]
        parts = [rows.new_empty((part.stop - part.start, *rows.shape[1:])) for part in sizes]
        for rank, part in enumerate(parts):
            if rank == self.rank:
                part.copy_(rows)
            torch.distributed.broadcast(part, rank)
        return torch.cat(parts)

    def leave(self) -> None:
        """End the connection to the others."""
        if self.size > 1:
            torch.distributed.destroy_process_group()


def join() -> World:
    """Join the processes that torchrun started, or return a world of one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return World(torch.distributed.get_rank(), size, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
