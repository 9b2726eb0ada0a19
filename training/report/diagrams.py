"""Blocks and whole networks as drawings, read from the modules themselves (the paper's figures 2, 3 and 5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from training.networks.cost import vgg_convolutions
from training.networks.resnet import BasicBlock, Bottleneck, ResNet, ZeroPadShortcut, architecture
from training.report import svg
from training.report.content import Figure, Table
from training.report.drawing import Panel, display

_WIDTH, _CENTRE, _BOX_WIDTH, _BOX_HEIGHT, _STEP = 260, 105, 130, 26, 52
_SHORTCUT_X = 215
_LAYER, _GAP, _LAYER_HEIGHT, _STRIP_HEIGHT = 19, 4, 88, 150
_STAGE_COLOURS = tuple(f"var(--series-{number})" for number in (1, 3, 5, 2, 4))
_BLOCK_HEADER = ("drawing", "layer", "kernel", "input channels", "output channels", "stride")


@dataclass(frozen=True, slots=True)
class _Layer:
    """A convolution, pooling or linear layer of a strip."""

    text: str
    stage: int
    starts_shortcut: str | None = None  # identity or projection: before this layer, over as many as `spans`
    spans: int = 0


def _network(name: str, shortcut: str | None = None) -> ResNet:
    described = architecture(name, shortcut)
    with torch.device("meta"):
        return ResNet(described, described.num_classes)


def plain_and_residual() -> Figure:
    """Draw a block of plain-56 beside the same block of ResNet-56 (figure 2)."""
    blocks = [(name, _block_of(name, 0)) for name in ("plain56", "resnet56")]
    return _blocks_figure(
        "block",
        "A residual block is a plain block whose input is added to its output; the layers are the same.",
        "The first block of each network, read from the modules. BN: batch norm. ReLU: max(0, x).",
        [(f"block-{name}", display(name), block) for name, block in blocks],
    )


def shortcut_blocks() -> Figure:
    """Draw the first block of the second stage of ResNet-20 with shortcuts A, B and C."""
    blocks = [(kind, _block_of("resnet20", 0, stage=1, shortcut=kind)) for kind in "ABC"]
    return _blocks_figure(
        "shortcut-blocks",
        "The shortcuts differ where a block changes the shape: A pads with zeros, B and C convolve.",
        "The first block of ResNet-20's second stage. In the other blocks A and B are the identity, and C a 1×1 "
        "convolution.",
        [(f"shortcut-{kind}", f"shortcut {kind}", block) for kind, block in blocks],
    )


def bottleneck() -> Figure:
    """Draw a basic block of ResNet-34 beside a bottleneck of ResNet-50 (figure 5)."""
    names = ("resnet34", "resnet50")
    return _blocks_figure(
        "bottleneck",
        "A bottleneck has three layers and four times the channels for about the cost of two 3×3 layers.",
        "The second block of the first stage, read from the modules.",
        [(f"bottleneck-{name}", display(name), _block_of(name, 1)) for name in names],
    )


def _block_of(name: str, index: int, *, stage: int = 0, shortcut: str | None = None) -> nn.Module:
    return list(list(_network(name, shortcut).stages())[stage].children())[index]


def _blocks_figure(name: str, finding: str, reading: str, blocks: Sequence[tuple[str, str, nn.Module]]) -> Figure:
    panels = [_block_panel(identifier, title, block) for identifier, title, block in blocks]
    rows = [
        (title, *_row(layer_name, layer))
        for _, title, block in blocks
        for layer_name, layer in block.named_modules()
        if isinstance(layer, nn.Conv2d)
    ]
    return Figure(name, finding, reading, panels, Table(_BLOCK_HEADER, rows), layout="small")


def _row(name: str, layer: nn.Conv2d) -> tuple[str, ...]:
    kernel = f"{layer.kernel_size[0]}x{layer.kernel_size[1]}"
    return name, kernel, str(layer.in_channels), str(layer.out_channels), str(layer.stride[0])


def _block_panel(name: str, title: str, block: nn.Module) -> Panel:
    if not isinstance(block, (BasicBlock, Bottleneck)):
        raise TypeError(f"not a block of a residual or plain network: {type(block).__name__}; give one of its stages'")
    layers = [layer for layer in block.children() if isinstance(layer, nn.Conv2d)]
    shapes = [svg.text(_CENTRE, 12, title, size=13)]
    shapes += [svg.text(_CENTRE, 34, f"x, {layers[0].in_channels} channels")]
    y, start = 44, 52
    for number, layer in enumerate(layers):
        shapes.append(svg.arrow(name, f"M {_CENTRE} {y} V {y + _STEP - _BOX_HEIGHT}"))
        y += _STEP - _BOX_HEIGHT
        shapes.append(svg.box(_CENTRE - _BOX_WIDTH / 2, y, _BOX_WIDTH, _BOX_HEIGHT, _STAGE_COLOURS[0]))
        shapes.append(svg.text(_CENTRE, y + _BOX_HEIGHT / 2, _describe(layer)))
        y += _BOX_HEIGHT
        after = "BN" if number == len(layers) - 1 and block.residual else "BN, ReLU"
        shapes.append(svg.text(_CENTRE + 8, y + 13, after, anchor="start", size=9))
    if block.residual:
        shapes += _addition(name, y, start, block.downsample)
        y += 44
        shapes.append(svg.text(_CENTRE + 8, y + 13, "ReLU", anchor="start", size=9))
    shapes.append(svg.arrow(name, f"M {_CENTRE} {y} V {y + 26}"))
    label = f"A block: {title}"
    return Panel(svg.document(name, label, _WIDTH, y + 32, shapes), label)


def _addition(name: str, y: float, start: float, shortcut: nn.Module | None) -> list[str]:
    """Return the shortcut beside the layers, from the block's input to a plus below them."""
    middle, text = (start + y) / 2, _describe_shortcut(shortcut)
    path = f"M {_CENTRE} {start} H {_SHORTCUT_X} V {y + 34} H {_CENTRE + 10}"
    shapes = [
        svg.arrow(name, f"M {_CENTRE} {y} V {y + 25}"),
        svg.circle(_CENTRE, y + 34, 9),
        svg.text(_CENTRE, y + 34, "+", size=14),
        svg.arrow(name, path, dashed=shortcut is not None),
    ]
    return [*shapes, svg.text(_SHORTCUT_X + 14, middle, text, turned=True)]


def _describe(layer: nn.Conv2d) -> str:
    stride = f" /{layer.stride[0]}" if layer.stride[0] > 1 else ""
    return f"{layer.kernel_size[0]}×{layer.kernel_size[1]}, {layer.out_channels}{stride}"


def _describe_shortcut(shortcut: nn.Module | None) -> str:
    if shortcut is None:
        return "identity"
    if isinstance(shortcut, ZeroPadShortcut):
        return f"stride {shortcut.stride}, {shortcut.new_channels} zero channels"
    [layer] = [inner for inner in shortcut.children() if isinstance(inner, nn.Conv2d)]
    return f"{_describe(layer)}, BN"


def strips() -> Figure:
    """Draw VGG-19, plain-34 and ResNet-34 layer by layer (figure 3)."""
    networks = {"vgg19": _vgg_layers(19), "plain34": _layers("plain34"), "resnet34": _layers("resnet34")}
    longest = max(map(len, networks.values()))
    shapes = []
    for number, (name, layers) in enumerate(networks.items()):
        shapes += _strip("strips", display(name), layers, 40 + number * _STRIP_HEIGHT)
    width, height = longest * (_LAYER + _GAP) + 20, len(networks) * _STRIP_HEIGHT + 10
    label = "VGG-19, plain-34 and ResNet-34 layer by layer"
    panel = Panel(svg.document("strips", label, width, height, shapes), label)
    rows = [
        (display(name), str(place), layer.text, layer.starts_shortcut or "")
        for name, layers in networks.items()
        for place, layer in enumerate(layers, start=1)
    ]
    return Figure(
        "strips",
        "plain-34 and ResNet-34 have the same layers; ResNet-34 has a shortcut around each pair of them.",
        "Each box is a layer, input at the left; colours are sizes of the feature map; /2 halves it. Arcs are "
        "shortcuts: solid where the identity, dashed where the shape changes.",
        [panel],
        Table(("network", "place", "layer", "shortcut from its input"), rows),
        layout="wide",
    )


def _strip(name: str, title: str, layers: Sequence[_Layer], top: float) -> list[str]:
    shapes = [svg.text(10, top - 28, title, anchor="start", size=13)]
    for number, layer in enumerate(layers):
        x = 10 + number * (_LAYER + _GAP)
        colour = _STAGE_COLOURS[layer.stage % len(_STAGE_COLOURS)]
        shapes.append(svg.box(x, top, _LAYER, _LAYER_HEIGHT, colour))
        shapes.append(svg.text(x + _LAYER / 2, top + _LAYER_HEIGHT / 2, layer.text, turned=True, size=10))
        if layer.starts_shortcut:
            start, end = x - _GAP / 2, x + layer.spans * (_LAYER + _GAP) - _GAP / 2
            arc = f"M {start:g} {top} C {start:g} {top - 22} {end:g} {top - 22} {end:g} {top - 2}"
            shapes.append(svg.arrow(name, arc, dashed=layer.starts_shortcut != "identity"))
    return shapes


def _layers(name: str) -> list[_Layer]:
    network = _network(name)
    layers = [_Layer(_describe(network.conv1), 0), _Layer("max pool /2", 1)]
    for stage, blocks in enumerate(network.stages(), start=1):
        for block in blocks.children():
            layers += _layers_of(block, stage)
    return [*layers, _Layer("average pool", len(_STAGE_COLOURS)), _Layer(f"linear, {network.num_classes}", 5)]


def _layers_of(block: nn.Module, stage: int) -> list[_Layer]:
    convolutions = [layer for layer in block.children() if isinstance(layer, nn.Conv2d)]
    layers = [_Layer(_describe(layer), stage) for layer in convolutions]
    if isinstance(block, (BasicBlock, Bottleneck)) and block.residual:
        layers[0] = _Layer(layers[0].text, stage, _describe_shortcut(block.downsample), len(layers))
    return layers


def _vgg_layers(depth: int) -> list[_Layer]:
    layers = []
    for stage, channels in enumerate(vgg_convolutions(depth)):
        layers += [_Layer(f"3×3, {count}", stage) for count in channels]
        layers.append(_Layer("max pool /2", stage))
    return [*layers, *(_Layer(f"linear, {size:,}", 5) for size in (4096, 4096, 1000))]
