"""PyTorch's own data parallelism as a judge: two processes get the gradients that DistributedDataParallel computes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed
from torch import Tensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from tests.training.trainer.test_gradients import HARDWARE, batch, network
from training.augmentation.mixing import Batch
from training.hardware.process_group import World, join
from training.trainer.gradients import ParallelGradients, statistics_of

ROOT = Path(__file__).parents[3]
IMAGES = 16


def compare() -> None:
    """Compute one step in both ways in this process, one of two."""
    world, whole = join(), batch(IMAGES)
    own_part = world.part(IMAGES)
    part = Batch(whole.images[own_part], whole.labels[own_part])
    ours, theirs = network(), network().train()
    numbers = ParallelGradients(ours, HARDWARE, world).compute_gradients(part, whole=IMAGES)
    parallel = DistributedDataParallel(theirs)
    loss = F.cross_entropy(parallel(part.images), part.labels)
    loss.backward()  # type: ignore[no-untyped-call]
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(numbers[0], mean(world, loss.detach()))
    for averaged, of_one in zip(statistics_of(ours), statistics_of(theirs), strict=True):
        torch.testing.assert_close(averaged, mean(world, of_one))
    world.leave()


def mean(world: World, tensor: Tensor) -> Tensor:
    """Return the mean over the processes, without code of this project."""
    total = tensor.clone()
    torch.distributed.all_reduce(total)
    return total / world.size


@pytest.mark.timeout(240)
def test_two_processes_compute_the_gradients_of_distributed_data_parallel(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(f"from {__name__} import compare\ncompare()\n")
    # By address, not by the name of this machine: some networks take minutes to say that a name is unknown.
    here = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", "torch.distributed.run", *here, str(script)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
