import dataclasses

import torch
from torch.nn import functional as F

from training.augmentation.mixing import Batch
from training.hardware.devices import Hardware, choose
from training.hardware.process_group import World
from training.networks.resnet import ResNet, build
from training.trainer.gradients import ParallelGradients

HARDWARE = choose("fp32", "off", 1)


def network() -> ResNet:
    torch.manual_seed(0)
    return build("resnet8", num_classes=4)


def batch(count: int = 16) -> Batch:
    random = torch.Generator().manual_seed(1)
    return Batch(torch.randn(count, 3, 32, 32, generator=random), torch.randint(0, 4, (count,), generator=random))


def gradients(
    hardware: Hardware, count: int = 16, micro_batches: int = 1, parts: int = 1
) -> tuple[ResNet, torch.Tensor]:
    model = network()
    numbers = ParallelGradients(model, hardware, World(), parts=parts).compute_gradients(
        batch(count), whole=count, micro_batches=micro_batches
    )
    return model, numbers


def test_one_replica_computes_what_backward_computes() -> None:
    model, numbers = gradients(HARDWARE)
    expected = network().train()
    loss = F.cross_entropy(expected(batch().images), batch().labels)
    loss.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(numbers[0], loss.detach())
    for one, other in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    torch.testing.assert_close(model.state_dict(), expected.state_dict())


def test_replicas_side_by_side_compute_what_micro_batches_compute_one_after_the_other() -> None:
    side_by_side, loss = gradients(dataclasses.replace(HARDWARE, threads=2), parts=2)
    one_after_the_other, other_loss = gradients(HARDWARE, micro_batches=2)
    torch.testing.assert_close(loss, other_loss)
    for one, other in zip(side_by_side.parameters(), one_after_the_other.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_parts_of_unequal_size_count_by_their_images() -> None:
    _, numbers = gradients(HARDWARE, count=7, parts=2)
    model = network().train()
    parts = batch(7).split(2)
    losses = [F.cross_entropy(model(part.images), part.labels) * len(part.labels) / 7 for part in parts]
    torch.testing.assert_close(numbers[0], sum(losses).detach())  # type: ignore[union-attr]
    assert numbers[2] == 1


def test_running_statistics_are_the_mean_of_the_parts() -> None:
    model, _ = gradients(dataclasses.replace(HARDWARE, threads=2), parts=2)
    means = []
    for part in batch().split(2):
        alone = network().train()
        alone(part.images)
        means.append(alone.bn1.running_mean)
    torch.testing.assert_close(model.bn1.running_mean, (means[0] + means[1]) / 2)


def test_the_result_does_not_depend_on_which_thread_is_faster() -> None:
    results = [gradients(dataclasses.replace(HARDWARE, threads=2), parts=2)[0] for _ in range(5)]
    for result in results[1:]:
        for one, other in zip(results[0].parameters(), result.parameters(), strict=True):
            assert one.grad is not None and other.grad is not None and torch.equal(one.grad, other.grad)
