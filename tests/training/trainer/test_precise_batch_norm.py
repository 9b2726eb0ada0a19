import dataclasses
from pathlib import Path

import torch

from tests.training.runs.test_run import RECIPE, train
from training.hardware.devices import choose
from training.hardware.process_group import World
from training.networks.resnet import ResNet, build
from training.trainer.gradients import statistics_of
from training.trainer.precise_batch_norm import make_statistics_precise
from training.weights.checkpoint import load_latest

HARDWARE = choose("fp32", "off", 2)


def network() -> ResNet:
    torch.manual_seed(0)
    return build("resnet8", num_classes=3)


def parts(count: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return [torch.randn(6, 3, 32, 32, generator=random) for _ in range(count)]


def test_statistics_become_the_plain_mean_over_all_parts() -> None:
    model = network()
    make_statistics_precise(model, iter(parts(5)), HARDWARE, World())
    outputs = [torch.nn.functional.conv2d(part, model.conv1.weight, padding=1) for part in parts(5)]
    mean = torch.stack([output.mean(dim=(0, 2, 3)) for output in outputs]).mean(0)
    variance = torch.stack([output.var(dim=(0, 2, 3)) for output in outputs]).mean(0)
    torch.testing.assert_close(model.bn1.running_mean, mean.detach())
    torch.testing.assert_close(model.bn1.running_var, variance.detach())


def test_weights_and_mode_stay_and_earlier_statistics_do_not_matter() -> None:
    model, other = network().eval(), network().eval()
    for statistic in statistics_of(other):
        statistic.fill_(7.0)
    for each in (model, other):
        make_statistics_precise(each, iter(parts(3)), HARDWARE, World())
    torch.testing.assert_close(statistics_of(model), statistics_of(other))
    assert not model.training and torch.equal(model.fc.weight, network().fc.weight)


def test_the_statistics_of_a_frozen_part_stay() -> None:
    model = network()
    model.bn1.requires_grad_(False)
    make_statistics_precise(model, iter(parts(3)), HARDWARE, World())
    assert torch.equal(model.bn1.running_mean, torch.zeros(16))  # type: ignore[arg-type]
    assert not torch.equal(model.layer1[0].bn1.running_mean, torch.zeros(16))


def test_a_run_hands_on_precise_statistics_and_keeps_its_own_for_resuming(images: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, ema_decay=None)
    train(images, tmp_path / "moving", recipe)
    train(images, tmp_path / "precise", dataclasses.replace(recipe, precise_bn_images=64))
    moving, precise = load_latest(tmp_path / "moving"), load_latest(tmp_path / "precise")
    assert moving and precise
    for name, tensor in moving.weights.items():
        assert torch.equal(tensor, precise.state["model"][name])
        if name.endswith(("running_mean", "running_var")):
            assert not torch.equal(tensor, precise.weights[name])
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(tensor, precise.weights[name])
