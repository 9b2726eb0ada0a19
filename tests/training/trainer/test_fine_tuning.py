"""What learns and how fast, down to the parameter."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from training.augmentation.mixing import Batch, balanced_weights
from training.hardware.devices import choose
from training.hardware.process_group import World
from training.networks.resnet import ResNet, build
from training.recipes.catalog import RECIPES
from training.trainer.fine_tuning import freeze, learning, parameter_groups
from training.trainer.gradients import ParallelGradients

RECIPE = dataclasses.replace(RECIPES["finetune"], layer_decay=1.0)
STEM = ["conv1.weight", "bn1.weight", "bn1.bias"]


def model_names(model: ResNet, group: dict[str, Any]) -> list[str]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [names[id(parameter)] for parameter in group["params"]]


def test_without_layer_decay_there_are_two_groups_kernels_that_decay_and_norms_and_biases_that_do_not() -> None:
    model = build("resnet8")
    kernels, others = parameter_groups(model, RECIPE)
    assert model_names(model, kernels) == [name for name, tensor in model.named_parameters() if tensor.ndim > 1]
    assert model_names(model, others) == [name for name, tensor in model.named_parameters() if tensor.ndim == 1]
    assert (kernels["weight_decay"], others["weight_decay"]) == (RECIPE.weight_decay, 0.0)
    assert kernels["rate_share"] == others["rate_share"] == 1.0


def test_with_layer_decay_the_stem_each_block_and_the_head_have_their_share_of_the_rate() -> None:
    model = build("resnet8")
    recipe = dataclasses.replace(RECIPE, layer_decay=0.5, decay_norms_and_biases=True)
    groups = parameter_groups(model, recipe)
    assert [group["rate_share"] for group in groups] == [0.5**4, 0.5**3, 0.5**2, 0.5, 1.0]
    assert model_names(model, groups[0]) == STEM
    assert all(name.startswith("layer2.0.") for name in model_names(model, groups[2])) and len(groups[2]["params"]) == 6
    assert model_names(model, groups[-1]) == ["fc.weight", "fc.bias"]
    grouped = [name for group in groups for name in model_names(model, group)]
    assert grouped == [name for name, _ in model.named_parameters()]


def test_layer_decay_counts_the_blocks_of_a_stage_one_by_one_and_keeps_norms_from_decaying() -> None:
    model = build("resnet18")
    groups = parameter_groups(model, dataclasses.replace(RECIPE, layer_decay=0.75))
    shares = [0.75 ** (9 - layer) for layer in range(10) for _ in range(2)]  # stem, 8 blocks, head; two groups each
    assert [group["rate_share"] for group in groups] == shares
    assert model_names(model, groups[4]) == ["layer1.1.conv1.weight", "layer1.1.conv2.weight"]
    assert [group["weight_decay"] for group in groups] == [RECIPE.weight_decay, 0.0] * 10


@pytest.mark.parametrize(
    ("what", "frozen"),
    [
        (None, ()),
        ("stem", ("conv1.", "bn1.")),
        ("layer2", ("conv1.", "bn1.", "layer1.", "layer2.")),
        ("body", ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.")),
    ],
)
def test_freezing_keeps_everything_up_to_that_part_out_of_the_groups(what: str | None, frozen: tuple[str, ...]) -> None:
    model = build("resnet8")
    freeze(model, what)
    expected = [name for name, _ in model.named_parameters() if not name.startswith(frozen or "-")]
    grouped = [name for group in parameter_groups(model, RECIPE) for name in model_names(model, group)]
    assert sorted(grouped) == sorted(expected)
    decayed = parameter_groups(model, dataclasses.replace(RECIPE, layer_decay=0.5))
    assert sorted(name for group in decayed for name in model_names(model, group)) == sorted(expected)


def test_a_part_that_the_network_does_not_have_is_named_with_those_it_has() -> None:
    with pytest.raises(ValueError, match=r"resnet8 has no layer4 to freeze; .*stem.*layer3"):
        freeze(build("resnet8"), "layer4")


def test_a_frozen_part_keeps_its_weights_and_its_statistics_while_the_rest_learns() -> None:
    torch.manual_seed(0)
    model = build("resnet8", num_classes=3)
    freeze(model, "layer1")
    replicas = ParallelGradients(model, choose("fp32", "off", 2), World())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(parameter_groups(model, RECIPE), lr=0.1)
    batch = Batch(torch.randn(8, 3, 16, 16), torch.arange(8) % 3)
    for _ in range(2):
        replicas.compute_gradients(batch, whole=8)
        optimizer.step()
    same = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    kept = {name for name in before if name.startswith(("conv1.", "bn1.", "layer1."))}
    assert kept <= same
    changed = {name for name in before if "running" in name or "conv" in name or name.startswith("fc.")} - kept
    assert changed.isdisjoint(same)
    assert len(learning(model)) < len(list(model.parameters()))


def test_balanced_weights_make_all_classes_count_equally_and_are_one_on_average() -> None:
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 1, 1, 2])
    weights = balanced_weights(labels, 3)
    torch.testing.assert_close(weights, torch.tensor([0.5, 1.5, 3.0]))
    assert weights[labels].mean() == 1.0


def weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return -(logits.log_softmax(1)[torch.arange(len(labels)), labels] * weights[labels]).mean()


def test_the_weighted_loss_of_a_batch_is_the_mean_of_its_parts() -> None:
    logits, labels = (
        torch.randn(8, 3, generator=torch.Generator().manual_seed(0)),
        torch.tensor([0, 0, 0, 0, 0, 1, 1, 2]),
    )
    weights = balanced_weights(labels, 3)
    batch = Batch(torch.zeros(8, 3, 1, 1), labels, class_weights=weights)
    whole = batch.loss(logits, 0.0)
    torch.testing.assert_close(whole, weighted_loss(logits, labels, weights))
    parts = [part.loss(part_logits, 0.0) for part, part_logits in zip(batch.split(2), logits.split(4), strict=True)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)
