"""The cost of a network: parameters and multiply-adds, beside VGG-16 and VGG-19 (the paper's table 1 and section 3.3).

A multiply-add is one weight times one activation, added up; convolutions and linear layers are counted, as the paper
does. The networks are measured by running them on the meta device: shapes only, no memory, no arithmetic. VGG is
counted from its list of layers (Simonyan & Zisserman, 2014, configurations D and E).
"""

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.networks.resnet import IMAGENET_BLOCKS, ResNet, architecture

CIFAR_DEPTHS = (20, 32, 44, 56, 110, 1202)
_VGG_CONVOLUTIONS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_VGG_CHANNELS = (64, 128, 256, 512, 512)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one image of `image_size` x `image_size` pixels."""

    network: str
    shortcut: str | None
    stride_in: str | None
    image_size: int
    parameters: int
    multiply_adds: int


def cost_of(network: str, shortcut: str | None = None, stride_in: str | None = None) -> Cost:
    """Count the parameters and multiply-adds of one network at its family's image size. Raises ValueError.

    From the third block on, the blocks of a stage are equal: they are counted once and multiplied.
    """
    described = architecture(network, shortcut, stride_in)
    shallow = dataclasses.replace(described, blocks=tuple(min(blocks, 2) for blocks in described.blocks))
    with torch.device("meta"):
        model = ResNet(shallow, described.num_classes)
        images = torch.empty(1, 3, described.image_size, described.image_size)
    multiply_adds = _count_multiply_adds(model, images)
    parameters, total = count_parameters(model), multiply_adds[model]
    for stage, blocks in zip(model.stages(), described.blocks, strict=True):
        parameters += (blocks - len(stage)) * count_parameters(stage[-1])
        total += (blocks - len(stage)) * multiply_adds[stage[-1]]
    return Cost(
        network=described.network,
        shortcut=described.shortcut,
        stride_in=described.stride_in,
        image_size=described.image_size,
        parameters=parameters,
        multiply_adds=total,
    )


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable parameters, batch norm's included."""
    return sum(parameter.numel() for parameter in module.parameters())


def _count_multiply_adds(model: nn.Module, images: Tensor) -> dict[nn.Module, int]:
    """Return the multiply-adds of one pass, for every module with all that is inside it."""
    own: dict[nn.Module, int] = {}

    def count(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            own[module] = output.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            own[module] = module.weight.numel()

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    model.eval()(images)
    for hook in hooks:
        hook.remove()
    return {module: sum(own.get(inner, 0) for inner in module.modules()) for module in model.modules()}


def vgg_cost(depth: int) -> Cost:
    """Count VGG-16 or VGG-19 at 224 x 224 pixels and 1000 classes. Raises KeyError for another depth."""
    parameters, multiply_adds, in_channels, side = 0, 0, 3, 224
    for stage in vgg_convolutions(depth):
        for channels in stage:
            weights = 3 * 3 * in_channels * channels
            parameters += weights + channels
            multiply_adds += weights * side * side
            in_channels = channels
        side //= 2  # max pooling
    for inputs, outputs in ((512 * 7 * 7, 4096), (4096, 4096), (4096, 1000)):
        parameters += inputs * outputs + outputs
        multiply_adds += inputs * outputs
    return Cost(f"vgg{depth}", None, None, 224, parameters, multiply_adds)


def vgg_convolutions(depth: int) -> list[list[int]]:
    """Return the output channels of each 3x3 convolution of VGG-16 or VGG-19, by stage. Raises KeyError."""
    return [[channels] * count for count, channels in zip(_VGG_CONVOLUTIONS[depth], _VGG_CHANNELS, strict=True)]


def all_costs() -> list[Cost]:
    """Count every network of the paper: both families, the shortcuts A, B and C, v1 and v1.5, plain twins, and VGG."""
    costs = []
    for depth in CIFAR_DEPTHS:
        costs += [cost_of(f"plain{depth}"), *(cost_of(f"resnet{depth}", kind) for kind in "ABC")]
    for depth in IMAGENET_BLOCKS:
        strides = ("1x1", "3x3") if depth >= 50 else (None,)
        for stride_in in strides:
            costs.append(cost_of(f"plain{depth}", None, stride_in))
            costs += [cost_of(f"resnet{depth}", kind, stride_in) for kind in "ABC"]
    return [*costs, vgg_cost(16), vgg_cost(19)]


def relative_to_vgg19(cost: Cost) -> dict[str, float]:
    """Return a network's share of VGG-19's parameters and multiply-adds: ResNet-34 needs 0.19 of the latter."""
    vgg19 = vgg_cost(19)
    return {
        "parameters_relative_to_vgg19": round(cost.parameters / vgg19.parameters, 5),
        "multiply_adds_relative_to_vgg19": round(cost.multiply_adds / vgg19.multiply_adds, 5),
    }
