"""Every network of *Deep residual learning for image recognition* (He et al., 2015).

Two families: the CIFAR one (section 4.2: 6n+2 layers, 16/32/64 filters, 3x3 stem) and the ImageNet one (table 1:
18, 34, 50, 101, 152 layers). Each comes with the shortcuts A, B or C of section 3.3, and as the plain twin of section
4.1: the same layers without any shortcut. State-dict names are torchvision's: conv1, layer1.0.bn2, downsample.0, fc.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.networks.suggestion import NETWORKS, did_you_mean

Shortcut = Literal["A", "B", "C"]
StrideIn = Literal["1x1", "3x3"]
Stem = Literal["7x7", "3x3", "3x3-pool"]

IMAGENET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
_FIRST_BOTTLENECK_DEPTH = 50
# Kernel and stride of the first convolution of the ImageNet family, and whether a max pool of stride 2 follows.
_STEMS: dict[Stem, tuple[int, int, bool]] = {"7x7": (7, 2, True), "3x3": (3, 2, False), "3x3-pool": (3, 1, True)}
_SMALL_STEM_SIZE = 64  # pixels
_NETWORK_NAME = re.compile(r"(resnet|plain)-?([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Architecture:
    """The variant behind a name. `shortcut` is None for plain networks, `stride_in` None without bottlenecks.

    `stem` is the ImageNet family's: the paper's 7x7 of stride 2 with a max pool, or for small images a 3x3 that halves
    them once, by its stride (3x3) or by the pool (3x3-pool). The CIFAR family's 3x3 of stride 1 has no name: None.
    """

    network: str
    depth: int
    blocks: tuple[int, ...]  # residual blocks in each stage
    bottleneck: bool
    imagenet: bool
    shortcut: Shortcut | None
    stride_in: StrideIn | None
    stem: Stem | None = None

    @property
    def image_size(self) -> int:
        """Side in pixels of the square images that the network is made for."""
        if self.stem in ("3x3", "3x3-pool"):
            return _SMALL_STEM_SIZE
        return 224 if self.imagenet else 32

    @property
    def num_classes(self) -> int:
        """Number of classes of the data set that the family was made for."""
        return 1000 if self.imagenet else 10


def architecture(
    network: str, shortcut: str | None = None, stride_in: str | None = None, stem: str | None = None
) -> Architecture:
    """Return the architecture behind a name such as resnet20, resnet50 or plain34.

    Without `shortcut`: A for the CIFAR family, B for the ImageNet one, as in the paper's tables 6 and 4. Without
    `stride_in`: 3x3 (v1.5, as torchvision); 1x1 is the paper's v1. Without `stem`: the paper's.
    Raises ValueError for a name, a depth or a choice that does not exist.
    """
    match = _NETWORK_NAME.fullmatch(network.lower())
    if match is None:
        close = did_you_mean(network, NETWORKS)
        raise ValueError(f"no network is called {network!r}; {close or 'try resnet20, resnet50 or plain34'}")
    plain, depth = match[1] == "plain", int(match[2])
    imagenet = depth in IMAGENET_BLOCKS
    if not imagenet and (depth < 8 or (depth - 2) % 6):
        raise ValueError(
            f"no network has {depth} layers: {', '.join(map(str, IMAGENET_BLOCKS))} are the ImageNet family, "
            "6n+2 (8, 14, 20, 32, 44, 56, 110, 1202) the CIFAR one"
        )
    bottleneck = imagenet and depth >= _FIRST_BOTTLENECK_DEPTH
    if plain and shortcut is not None:
        raise ValueError(f"{network} is a plain network and has no shortcut {shortcut}")
    if shortcut not in (None, "A", "B", "C"):
        raise ValueError(f"no shortcut is called {shortcut!r}; the paper has A, B and C")
    _check_stride(network, stride_in, bottleneck=bottleneck)
    _check_stem(network, stem, imagenet=imagenet)
    return Architecture(
        network=f"{match[1]}{depth}",
        depth=depth,
        blocks=IMAGENET_BLOCKS[depth] if imagenet else ((depth - 2) // 6,) * 3,
        bottleneck=bottleneck,
        imagenet=imagenet,
        shortcut=None if plain else cast(Shortcut, shortcut or ("B" if imagenet else "A")),
        stride_in=cast(StrideIn, stride_in or "3x3") if bottleneck else None,
        stem=cast(Stem, stem or "7x7") if imagenet else None,
    )


def _check_stride(network: str, stride_in: str | None, *, bottleneck: bool) -> None:
    if stride_in is not None and not bottleneck:
        raise ValueError(f"{network} has no bottlenecks, so the place of their stride cannot be chosen")
    if stride_in not in (None, "1x1", "3x3"):
        raise ValueError(f"a bottleneck's stride is in its first 1x1 (v1) or in its 3x3 (v1.5), not in {stride_in!r}")


def _check_stem(network: str, stem: str | None, *, imagenet: bool) -> None:
    if stem is not None and not imagenet:
        raise ValueError(f"{network} has the CIFAR family's stem, so no other can be chosen")
    if stem is not None and stem not in _STEMS:
        raise ValueError(f"no stem is called {stem!r}; there are {', '.join(_STEMS)}")


def build(
    network: str,
    *,
    num_classes: int | None = None,
    shortcut: str | None = None,
    stride_in: str | None = None,
    stem: str | None = None,
) -> "ResNet":
    """Return a freshly initialized network; `num_classes` defaults to 10 or 1000. Raises as `architecture` does."""
    described = architecture(network, shortcut, stride_in, stem)
    return ResNet(described, described.num_classes if num_classes is None else num_classes)


class ZeroPadShortcut(nn.Module):
    """Option A: every `stride`-th pixel, and zeros for the channels that are new. No parameters."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels, self.stride = out_channels - in_channels, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


def _convolution(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)


def _shortcut(kind: Shortcut | None, in_channels: int, out_channels: int, stride: int) -> nn.Module | None:
    """Return what stands beside a block's layers; None where it is the identity (or where there is none at all)."""
    same_shape = stride == 1 and in_channels == out_channels
    if kind is None or (same_shape and kind != "C"):
        return None
    if kind == "A":
        return ZeroPadShortcut(in_channels, out_channels, stride)
    return nn.Sequential(_convolution(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions (figure 5, left)."""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int, described: Architecture) -> None:
        super().__init__()
        self.residual = described.shortcut is not None
        self.conv1 = _convolution(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(described.shortcut, in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.residual:
            out = out + (x if self.downsample is None else self.downsample(x))
        return F.relu(out)


class Bottleneck(nn.Module):
    """1x1 down, 3x3, 1x1 up (figure 5, right); the stride sits in the first 1x1 (v1) or in the 3x3 (v1.5)."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int, described: Architecture) -> None:
        super().__init__()
        self.residual = described.shortcut is not None
        first, second = (stride, 1) if described.stride_in == "1x1" else (1, stride)
        out_channels = width * self.expansion
        self.conv1 = _convolution(in_channels, width, 1, first)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, second)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _convolution(width, out_channels, 1)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(described.shortcut, in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.residual:
            out = out + (x if self.downsample is None else self.downsample(x))
        return F.relu(out)


class ResNet(nn.Module):
    """A residual or plain network: stem, stages of blocks, global average pooling, one linear layer.

    `forward` takes normalized images, float (N, 3, H, W), and returns logits (N, num_classes).
    """

    def __init__(self, described: Architecture, num_classes: int) -> None:
        super().__init__()
        self.architecture = described
        self.num_classes = num_classes
        block = Bottleneck if described.bottleneck else BasicBlock
        channels = 64 if described.imagenet else 16
        kernel, stride, is_pooled = _STEMS[described.stem] if described.stem else (3, 1, False)
        self.conv1 = _convolution(3, channels, kernel, stride)
        self.bn1 = nn.BatchNorm2d(channels)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if is_pooled else nn.Identity()
        width = channels
        for stage, blocks in enumerate(described.blocks):
            layers = []
            for index in range(blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                layers.append(block(channels, width, stride, described))
                channels = width * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
            width *= 2
        self.fc = nn.Linear(channels, num_classes)
        # What the paper's CIFAR recipe subtracts from each normalized image, (3, H, W); absent in other recipes.
        self.pixel_mean: Tensor | None
        self.register_buffer("pixel_mean", None)
        initialize(self)

    @property
    def embedding_size(self) -> int:
        """Number of pooled features, D."""
        return self.fc.in_features

    def stages(self) -> Iterator[nn.Sequential]:
        """Yield layer1, layer2, …"""
        for index in range(len(self.architecture.blocks)):
            yield cast(nn.Sequential, getattr(self, f"layer{index + 1}"))

    def features(self, images: Tensor) -> Tensor:
        """Return the last feature map, (N, D, h, w), before the pooling."""
        if self.pixel_mean is not None:
            images = images - self.pixel_mean
        x = self.maxpool(F.relu(self.bn1(self.conv1(images))))
        for stage in self.stages():
            x = stage(x)
        return cast(Tensor, x)

    def forward(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.fc(self.features(images).mean(dim=(2, 3))))


def initialize(model: nn.Module) -> None:
    """He initialization (the paper's reference [13], forward form): variance 2 / (k * k * input channels)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)


def zero_init_residual(model: ResNet) -> None:
    """Make each residual block the identity at first: the scale of its last batch norm is 0 (Goyal et al. 2017).

    Raises ValueError for a plain network, whose blocks have no shortcut.
    """
    if model.architecture.shortcut is None:
        raise ValueError(f"{model.architecture.network} is a plain network: remove zero_init_residual")
    for module in model.modules():
        if isinstance(module, (BasicBlock, Bottleneck)):
            nn.init.zeros_(module.bn3.weight if isinstance(module, Bottleneck) else module.bn2.weight)


def load_weights(model: ResNet, weights: dict[str, Tensor]) -> None:
    """Copy a state dict into a network, in place. Raises ValueError, with names and shapes, if it does not fit."""
    refuse_misfit(model, weights)
    if "pixel_mean" in weights:
        model.pixel_mean = torch.empty_like(weights["pixel_mean"])
    model.load_state_dict(weights, strict=False)


def refuse_misfit(model: ResNet, weights: Mapping[str, Tensor]) -> None:
    """Raise ValueError that names what a state dict lacks, has too much or in another shape than the network."""
    expected = {name: tensor.shape for name, tensor in model.state_dict().items() if name != "pixel_mean"}
    given = {name: tensor.shape for name, tensor in weights.items() if name != "pixel_mean"}
    # Files of some sources leave out the count of batches that batch norm has seen; nothing here depends on it.
    missing = [name for name in expected if name not in given and not name.endswith("num_batches_tracked")]
    extra = [name for name in given if name not in expected]
    reshaped = [
        f"{name} {tuple(shape)} instead of {tuple(expected[name])}"
        for name, shape in given.items()
        if name in expected and shape != expected[name]
    ]
    problems = (("lacks", missing), ("has the unknown", extra), ("has", reshaped))
    if any(names for _, names in problems):
        described = "; ".join(f"{verb} {_first_few(names)}" for verb, names in problems if names)
        raise ValueError(f"these are not the weights of {model.architecture.network}: the file {described}")


def _first_few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
