"""A trained ResNet-18 as the start of a network of bottlenecks."""

import copy
from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from typer.testing import CliRunner

from tests.training.conftest import write_images
from training.cli import main
from training.networks.resnet import ResNet, build
from training.weights.conversion import recognise
from training.weights.growth import grow

SHIPPED = Path(__file__).parents[3] / "training" / "results" / "everyday-resnet18"


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def trained(images: Tensor) -> ResNet:
    """A ResNet-18 whose batch norms have the statistics of the images, as after training."""
    torch.manual_seed(0)
    network = build("resnet18", num_classes=7, stem="3x3")
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # cumulative
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.uniform_(norm.bias, -0.5, 0.5)
    with torch.no_grad():
        network.train()(images)
    return network.eval()


@pytest.fixture(scope="module")
def grown(trained: ResNet, images: Tensor) -> ResNet:
    torch.manual_seed(0)
    return grow(trained, "resnet50", images)


def share_of_equal(one: Tensor, other: Tensor) -> float:
    """The share of equal values. Values below -4 standard deviations are not passed on."""
    return torch.isclose(one, other, rtol=1e-3, atol=1e-3).float().mean().item()


@torch.no_grad()
@pytest.mark.parametrize("stage", [1, 2])
def test_two_bottlenecks_compute_a_basic_block(trained: ResNet, grown: ResNet, images: Tensor, stage: int) -> None:
    x = trained.bn1(trained.conv1(images)).relu()
    for earlier in list(trained.stages())[: stage - 1]:
        x = earlier(x)
    theirs, ours = list(trained.stages())[stage - 1], list(grown.stages())[stage - 1]
    in_channels = cast(Tensor, ours.get_submodule("0.conv1").weight).shape[1]
    # What fills the other input channels does not matter: they are read with weights of zero.
    others = torch.rand(len(x), in_channels - x.shape[1], *x.shape[2:])
    wide, narrow = ours[1](ours[0](torch.cat([x, others], dim=1))), theirs[0](x)
    assert share_of_equal(wide[:, : narrow.shape[1]], narrow) > 0.999


@torch.no_grad()
def test_a_stage_of_four_bottlenecks_computes_two_basic_blocks(trained: ResNet, grown: ResNet, images: Tensor) -> None:
    x = next(trained.stages())(trained.bn1(trained.conv1(images)).relu())
    wide = torch.cat([x, torch.zeros(len(x), 192, *x.shape[2:])], dim=1)
    theirs, ours = list(trained.stages())[1], list(grown.stages())[1]
    assert share_of_equal(ours(wide)[:, :128], theirs(x)) > 0.99


@torch.no_grad()
def test_the_answers_stay_where_no_block_is_approximated(trained: ResNet, images: Tensor) -> None:
    network = copy.deepcopy(trained)
    for approximated in ("layer1.1", "layer4.1"):  # they add nothing to their shortcuts
        for vector in network.get_submodule(f"{approximated}.bn2").parameters():
            vector.zero_()
    answers, grown = network(images), grow(network, "resnet50", images)(images)
    assert (answers - grown).square().mean() < 1e-3 * answers.var(dim=0).mean()


def test_every_layer_of_the_grown_network_can_learn(grown: ResNet, images: Tensor) -> None:
    grown.train()(images).logsumexp(1).sum().backward()
    without = {name for name, parameter in grown.named_parameters() if not cast(Tensor, parameter.grad).abs().sum()}
    grown.eval().zero_grad()
    # Blocks that are the identity at first learn from the scale of their last batch norm on.
    identities = ("layer3.4.", "layer3.5.")
    assert all(name.startswith(identities) and "bn3" not in name for name in without), without


@pytest.mark.parametrize(
    ("source", "shortcut", "target"),
    [("resnet34", "B", "resnet50"), ("resnet18", "A", "resnet50"), ("resnet18", "B", "resnet34")],
)
def test_networks_that_do_not_fit_are_refused(images: Tensor, source: str, shortcut: str, target: str) -> None:
    with pytest.raises(ValueError, match=f"{source} with shortcuts {shortcut} does not grow into {target}: give"):
        grow(build(source, num_classes=3, stem="3x3", shortcut=shortcut), target, images)


def test_the_verb_writes_weights_that_a_run_starts_from(tmp_path: Path) -> None:
    data, out = write_images(tmp_path / "colours", each=4), tmp_path / "grown.safetensors"
    done = CliRunner().invoke(main, ["grow", str(SHIPPED), str(out), "--data", str(data)])
    assert done.exit_code == 0, done.output
    assert f"train it with: train-resnet run --weights {out}" in done.output
    network = recognise(load_file(out))
    assert network is not None
    assert (network.network, network.stem) == ("resnet50", "3x3")


@pytest.mark.parametrize(
    ("run", "data", "message"),
    [
        ("nothing", "colours", "nothing"),
        (str(SHIPPED), "nowhere", "nowhere"),
        (str(SHIPPED.parent / "cifar10-resnet20"), "colours", "resnet20"),
    ],
)
def test_the_verb_names_what_is_wrong(tmp_path: Path, run: str, data: str, message: str) -> None:
    write_images(tmp_path / "colours", each=4)
    arguments = ["grow", str(tmp_path / run), str(tmp_path / "out"), "--data", str(tmp_path / data)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output
