"""A trained ResNet-18 as the start of a network of bottlenecks, after Net2Net (Chen et al. 2016).

Each basic block becomes two bottlenecks that compute the same: its first 3x3 convolution goes into the first one, its
second into the second. The 1x1 convolutions copy channels. A stage of width w has 4w output channels: 0 to w are the
output of the basic block, w to 3w carry the values between the convolutions of the two blocks, 3w to 4w are new. New
channels are read with weights of zero at first, so that the answers stay. Where a stage has three bottlenecks for two
basic blocks (ResNet-50's first and last), the second block is only approximated.
"""

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from training.networks.resnet import BasicBlock, Bottleneck, ResNet, build

_SOURCE = "resnet18"
# Signed values pass through the ReLU of a bottleneck raised by this number of standard deviations above zero.
_RAISED = 4.0


def grow(trained: ResNet, network: str, images: Tensor) -> ResNet:
    """Return a network of bottlenecks, in evaluation mode, that answers almost as a trained ResNet-18.

    `network` is resnet50, resnet101 or resnet152. `images` are normalized training images, float (N, 3, H, W): the
    statistics of the new batch norms are theirs. Raises ValueError for networks that do not fit.
    """
    described = trained.architecture
    grown = build(network, num_classes=trained.num_classes, stem=described.stem)
    if described.network != _SOURCE or described.shortcut != "B" or not grown.architecture.bottleneck:
        raise ValueError(
            f"{described.network} with shortcuts {described.shortcut} does not grow into {network}: "
            f"give a run of {_SOURCE} with shortcuts B, and --network resnet50, resnet101 or resnet152"
        )
    grown.conv1.load_state_dict(trained.conv1.state_dict())
    grown.bn1.load_state_dict(trained.bn1.state_dict())
    growth = _Growth()
    channels = grown.conv1.out_channels
    with torch.no_grad():
        for theirs, ours in zip(trained.stages(), grown.stages(), strict=True):
            growth.fill_stage(cast(list[Bottleneck], list(ours)), cast(list[BasicBlock], list(theirs)), channels)
            channels = cast(BasicBlock, theirs[0]).conv2.out_channels
        grown.fc.weight.zero_()
        grown.fc.weight[:, :channels] = trained.fc.weight
        grown.fc.bias.copy_(trained.fc.bias)
        if trained.pixel_mean is not None:
            grown.pixel_mean = trained.pixel_mean.clone()
        grown.eval()
        growth.measure_statistics(grown, images)
    return grown


@dataclass(slots=True)
class _Norm:
    """A batch norm whose statistics are measured. The first `copied` channels keep theirs.

    The channels `passing`, a slice, leave it as they come, minus `lowered`.
    """

    copied: int = 0
    passing: slice = field(default_factory=lambda: slice(0))
    lowered: Tensor | float = 0.0

    def settle(self, norm: nn.BatchNorm2d, values: Tensor) -> None:
        """Set the statistics, and weights and biases of passing channels, from the input (N, C, H, W)."""
        variance, mean = torch.var_mean(values, dim=(0, 2, 3))
        cast(Tensor, norm.running_mean)[self.copied :] = mean[self.copied :]
        cast(Tensor, norm.running_var)[self.copied :] = variance[self.copied :]
        norm.weight[self.passing] = (variance[self.passing] + norm.eps).sqrt()
        norm.bias[self.passing] = mean[self.passing] - self.lowered


@dataclass(slots=True)
class _Growth:
    """The batch norms of a growing network that are not copied from the trained one."""

    norms: dict[nn.BatchNorm2d, _Norm] = field(default_factory=dict)

    def fill_stage(self, ours: list[Bottleneck], theirs: list[BasicBlock], channels: int) -> None:
        """Fill the bottlenecks of a stage with two basic blocks; `channels` of its input are the trained network's."""
        width = ours[0].conv2.out_channels
        raised = self._fill_projection(ours[0], theirs[0], channels)
        _layers(ours[0].downsample)[1].weight[width : 3 * width] = 0  # the values between convolutions
        for block in ours:
            block.bn3.weight.zero_()
            self.norms |= {block.bn1: _Norm(), block.bn2: _Norm(), block.bn3: _Norm()}
        self._fill_first_half(ours[0], theirs[0], channels, width)
        self._fill_second_half(ours[1], theirs[0], width, raised)
        if len(ours) == len(theirs) + 1:
            self._approximate(ours[2], theirs[1])
            return
        self._fill_first_half(ours[2], theirs[1], width, 2 * width)
        self._fill_second_half(ours[3], theirs[1], 2 * width, 0.0)

    def _fill_projection(self, ours: Bottleneck, theirs: BasicBlock, channels: int) -> Tensor | float:
        """Fill the projection of a stage; return by how much its output is raised, (w,)."""
        convolution, norm = _layers(ours.downsample)
        if theirs.downsample is None:
            _copy_channels(convolution.weight, 0, 0, channels)
            self.norms[norm] = _Norm(passing=slice(channels))
            return 0.0
        their_convolution, their_norm = _layers(theirs.downsample)
        width = their_convolution.out_channels
        convolution.weight[:width] = 0
        convolution.weight[:width, :channels] = their_convolution.weight
        _copy_norm(norm, their_norm)
        raised = (_RAISED * their_norm.weight.abs() - their_norm.bias).clamp(min=0)
        norm.bias[:width] += raised
        self.norms[norm] = _Norm(copied=width)
        return raised

    def _fill_first_half(self, ours: Bottleneck, theirs: BasicBlock, channels: int, hidden: int) -> None:
        """Compute the values between the convolutions of a basic block, into the channels from `hidden` on."""
        width = ours.conv2.out_channels
        self._fill_input(ours, theirs.conv1, theirs.bn1, slice(channels))
        _copy_channels(ours.conv3.weight, hidden, 0, width)
        self.norms[ours.bn3] = _Norm(passing=slice(hidden, hidden + width))

    def _fill_second_half(self, ours: Bottleneck, theirs: BasicBlock, hidden: int, raised: Tensor | float) -> None:
        """Add the second convolution of a basic block to its shortcut, which was raised."""
        width = ours.conv2.out_channels
        self._fill_input(ours, theirs.conv2, theirs.bn2, slice(hidden, hidden + width))
        lift = _RAISED * theirs.bn2.weight.abs() - theirs.bn2.bias
        ours.bn2.bias.add_(lift)
        _copy_channels(ours.conv3.weight, 0, 0, width)
        self.norms[ours.bn3] = _Norm(passing=slice(width), lowered=lift + raised)

    def _approximate(self, ours: Bottleneck, theirs: BasicBlock) -> None:
        """Put a basic block into one bottleneck: of its second convolution only the sum over the pixels is left."""
        width = ours.conv2.out_channels
        self._fill_input(ours, theirs.conv1, theirs.bn1, slice(width))
        ours.conv3.weight[:width] = theirs.conv2.weight.sum(dim=(2, 3), keepdim=True)
        ours.bn3.weight[:width] = theirs.bn2.weight
        ours.bn3.bias[:width] = theirs.bn2.bias

    def _fill_input(self, ours: Bottleneck, convolution: nn.Conv2d, norm: nn.BatchNorm2d, read: slice) -> None:
        """Make a bottleneck apply a 3x3 convolution, with its batch norm, to some of its input channels."""
        count = read.stop - (read.start or 0)
        _copy_channels(ours.conv1.weight, 0, read.start or 0, count)
        self.norms[ours.bn1] = _Norm(passing=slice(count))
        ours.conv2.weight.zero_()
        ours.conv2.weight[:, :count] = convolution.weight
        _copy_norm(ours.bn2, norm)
        del self.norms[ours.bn2]

    def measure_statistics(self, network: ResNet, images: Tensor) -> None:
        """Set the batch norms in the order of the layers, by one pass of the images (N, 3, H, W)."""

        def settle(module: nn.Module, inputs: tuple[Tensor]) -> None:
            norm = cast(nn.BatchNorm2d, module)
            self.norms[norm].settle(norm, inputs[0])

        hooks = [norm.register_forward_pre_hook(settle) for norm in self.norms]
        network(images)
        for hook in hooks:
            hook.remove()


def _layers(projection: nn.Module | None) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Return the two layers of a projection shortcut."""
    layers = cast(nn.Sequential, projection)
    return cast(nn.Conv2d, layers[0]), cast(nn.BatchNorm2d, layers[1])


def _copy_channels(weight: Tensor, outputs: int, inputs: int, count: int) -> None:
    """Make `count` output channels of a 1x1 convolution copies of input channels."""
    rows = slice(outputs, outputs + count)
    weight[rows] = 0
    weight[rows, inputs : inputs + count, 0, 0] = torch.eye(count)


def _copy_norm(ours: nn.BatchNorm2d, theirs: nn.BatchNorm2d) -> None:
    """Copy a batch norm into the first channels of another one."""
    for name, tensor in theirs.state_dict().items():
        if tensor.ndim:
            ours.state_dict()[name][: len(tensor)] = tensor
