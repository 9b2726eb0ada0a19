"""Fine-tuning of a trained network: frozen layers, and learning rates that decrease towards the input.

Layers are counted from the input: the stem, each block, the head. A frozen part begins at the input and keeps its
weights and batch-norm statistics. With a layer decay of d, a layer n layers below the head has d ** n of the recipe's
learning rate (as timm counts them).
"""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from training.networks.resnet import ResNet
from training.recipes.recipe import Recipe

_STEM, _BODY = "stem", "body"  # the body is everything but the head


def freeze(model: ResNet, what: str | None) -> None:
    """Freeze all layers from the input up to and including `what`: stem, layer1, …, body; None: no layer.

    Raises ValueError for a part that the network does not have.
    """
    if what is None:
        return
    stages = list(model.stages())
    frozen_stages = {_STEM: 0, _BODY: len(stages)} | {f"layer{count}": count for count in range(1, len(stages) + 1)}
    if what not in frozen_stages:
        raise ValueError(
            f"{model.architecture.network} has no {what} to freeze; --set freeze={'|'.join(frozen_stages)}"
        )
    for module in (model.conv1, model.bn1, *stages[: frozen_stages[what]]):
        module.requires_grad_(False)


def set_training_mode(model: nn.Module) -> None:
    """Put a network in training mode, except for the batch norms of its frozen part."""
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not module.weight.requires_grad:
            module.eval()


def learning(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def parameter_groups(model: ResNet, recipe: Recipe) -> list[dict[str, Any]]:
    """Group the trainable parameters by their share of the learning rate, `rate_share`, and by weight decay."""
    if recipe.layer_decay == 1:
        return _by_decay(learning(model), recipe, 1.0)
    layers = [[parameter for module in modules for parameter in learning(module)] for modules in _layers(model)]
    groups: list[dict[str, Any]] = []
    for below, parameters in zip(reversed(range(len(layers))), layers, strict=True):
        groups += _by_decay(parameters, recipe, recipe.layer_decay**below)
    return groups


def _layers(model: ResNet) -> Iterator[list[nn.Module]]:
    yield [model.conv1, model.bn1]
    for stage in model.stages():
        yield from ([block] for block in stage)
    yield [model.fc]


def _by_decay(parameters: Iterable[nn.Parameter], recipe: Recipe, rate_share: float) -> list[dict[str, Any]]:
    """Split parameters into those with and without weight decay (norms and biases, if the recipe says so)."""
    all_decay = recipe.decay_norms_and_biases
    decaying = [parameter for parameter in parameters if all_decay or parameter.ndim > 1]
    others = [parameter for parameter in parameters if not (all_decay or parameter.ndim > 1)]
    groups = ((decaying, recipe.weight_decay), (others, 0.0))
    return [
        {"params": members, "weight_decay": weight_decay, "rate_share": rate_share}
        for members, weight_decay in groups
        if members
    ]
