"""Signals and gradients of a network before any training, with and without batch norm.

The paper argues that plain networks do not degrade because signals vanish: with batch norm, forward signals have
non-zero variances and backward gradients healthy norms (section 4.1). Networks without batch norm are the control.
Computed in float64, whose range vanishing signals need.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.resnet import ResNet, build

HE, NARROW = "He", "narrow"
_NARROW_DEVIATION = 0.01  # of all weights, as in Krizhevsky et al. 2012
_SMALLEST = 1e-300  # has a logarithm


@dataclass(frozen=True, slots=True)
class Setup:
    """A network to measure; `initialization` is HE, or NARROW: a normal distribution of deviation 0.01."""

    network: str
    batch_norm: bool = True
    initialization: str = HE

    @property
    def label(self) -> str:
        """The setup in words: plain-56 without batch norm, weights of deviation 0.01."""
        name = self.network.replace("plain", "plain-").replace("resnet", "ResNet-")
        without = "" if self.batch_norm else " without batch norm"
        narrow = f", weights of deviation {_NARROW_DEVIATION}" if self.initialization == NARROW else ""
        return f"{name}{without}{narrow}"


SETUPS = (
    Setup("plain56"),
    Setup("resnet56"),
    Setup("plain56", batch_norm=False),
    Setup("plain56", batch_norm=False, initialization=NARROW),
)


@dataclass(frozen=True, slots=True)
class Signals:
    """A value for each 3x3 convolution, first layer first; geometric means over seeds.

    `response` is the standard deviation before the activation, `backward` the norm of the loss gradient with respect to
    that response, `gradient_over_weight` the norm of the weights' gradient over the norm of the weights.
    """

    response: list[float]
    backward: list[float]
    gradient_over_weight: list[float]


def measure(setup: Setup, images: Tensor, labels: Tensor, seeds: Sequence[int]) -> Signals:
    """Return the signals for normalized images (N, 3, H, W) and labels int64 (N,), in training mode."""
    found = torch.stack([_measured(_built(setup, seed), images.double(), labels) for seed in seeds])
    response, backward, gradient = found.clamp_min(_SMALLEST).log().mean(0).exp().tolist()
    return Signals(response, backward, gradient)


def _built(setup: Setup, seed: int) -> ResNet:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(setup.network)
        if setup.initialization == NARROW:
            for parameter in network.parameters():
                if parameter.ndim > 1:
                    nn.init.normal_(parameter, std=_NARROW_DEVIATION)
    if not setup.batch_norm:
        remove_batch_norm(network)
    return network.double().train()


def remove_batch_norm(network: nn.Module) -> None:
    """Replace each batch norm by the identity, in place."""
    for name, module in network.named_children():
        if isinstance(module, nn.BatchNorm2d):
            setattr(network, name, nn.Identity())
        else:
            remove_batch_norm(module)


def _measured(network: ResNet, images: Tensor, labels: Tensor) -> Tensor:
    """Return response, backward and gradient over weight of each 3x3 convolution, (3, layers)."""
    modules = dict(network.named_modules())
    layers = {
        name: module
        for name, module in modules.items()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)
    }
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output)

    hooks = [modules[name.replace("conv", "bn")].register_forward_hook(keep) for name in layers]
    loss = F.cross_entropy(network(images), labels)
    for hook in hooks:
        hook.remove()
    weights = [layer.weight for layer in layers.values()]
    gradients = torch.autograd.grad(loss, [*outputs, *weights])
    backward, of_weights = gradients[: len(outputs)], gradients[len(outputs) :]
    relative = [gradient.norm() / weight.detach().norm() for gradient, weight in zip(of_weights, weights, strict=True)]
    responses = torch.stack([output.detach().std() for output in outputs])
    return torch.stack([responses, torch.stack([gradient.norm() for gradient in backward]), torch.stack(relative)])
