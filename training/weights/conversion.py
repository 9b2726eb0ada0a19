"""Weights from elsewhere: torchvision, timm, Hugging Face and akamaster files, under this project's names.

Only tensors are ever read: from safetensors, or by PyTorch's reader that refuses everything else. Whose file it is
shows in the names; whether it fits shows in names and shapes, and what does not fit is refused with both. Shapes
do not show where a bottleneck's stride is: the files of torchvision, timm and Hugging Face have it in the 3x3 (v1.5).
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.networks.resnet import IMAGENET_BLOCKS, Architecture, ResNet, Stem, architecture, refuse_misfit
from training.weights.checkpoint import CheckpointError, read_weights
from training.weights.unwrapping import state_dict_in, unwrapped, with_head

_COUNTERS = ("n_averaged", "num_updates", "decay", "initted", "step")  # beside averaged weights
_HEAD = "fc."
_FIRST_OF_A_BLOCK = re.compile(r"layer([0-9]+)\.[0-9]+\.conv1\.weight")

_PARTS = {"convolution": "conv", "normalization": "bn"}
_HUGGING_FACE_STEM = re.compile(r"(?:resnet\.)?embedder\.embedder\.(convolution|normalization)\.(\w+)")
_HUGGING_FACE_LAYER = re.compile(
    r"(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.(convolution|normalization)\.(\w+)"
)
_HUGGING_FACE_SHORTCUT = re.compile(
    r"(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.(convolution|normalization)\.(\w+)"
)
_OTHER_HEAD = re.compile(r"(?:linear|classifier\.1)\.(weight|bias)")  # akamaster's, Hugging Face's


def read_foreign(path: Path, described: Architecture) -> dict[str, Tensor]:
    """Return the weights in a .pth, .pt, .th, .bin or .safetensors file under our names, on the CPU, floats as float32.

    They fit a network of that architecture with as many classes as the file has; a file without a head is taken, too.
    Raises as `read_named` and `refuse_unfit` do.
    """
    weights = read_named(path)
    refuse_unfit(weights, described, path)
    return weights


def read_named(path: Path, log: Callable[[str], None] = lambda _line: None) -> dict[str, Tensor]:
    """Return the weights in a file as `read_foreign` does, of whatever network they are.

    Raises CheckpointError for a file that cannot be read or does not show which weights are meant, ValueError for names
    that clash.
    """
    inside, beside = unwrapped(state_dict_in(_read(path), path, log), path, log)
    weights: dict[str, Tensor] = {}
    for name, tensor in inside.items():
        if name in _COUNTERS:
            continue
        ours = _our_name(name)
        if ours in weights:
            raise ValueError(f"{path}: two tensors of this file are both {ours}; save only the intended ones")
        weights[ours] = tensor
    weights = with_head(weights, beside, path, log)
    return {
        name: tensor.detach().float() if tensor.is_floating_point() else tensor.detach()
        for name, tensor in weights.items()
    }


def recognise(weights: Mapping[str, Tensor]) -> Architecture | None:
    """Return the network that weights under our names are of, by their names; None for a network unknown here.

    Without any weights in its shortcuts it is taken for residual, with option A: a plain network has the same names.
    """
    blocks = [match for name in weights if (match := _FIRST_OF_A_BLOCK.fullmatch(name))]
    stages = tuple(count for _, count in sorted(Counter(int(match[1]) for match in blocks).items()))
    is_bottleneck = "layer1.0.conv3.weight" in weights
    projections = sum(name.endswith(".downsample.0.weight") for name in weights)
    shortcut = "A" if not projections else "C" if projections == len(blocks) else "B"
    layers = sum(stages) * (3 if is_bottleneck else 2) + 2
    try:
        described = architecture(f"resnet{layers}", shortcut, stem=_stem_of(weights, layers))
    except ValueError:
        return None
    return described if (described.blocks, described.bottleneck) == (stages, is_bottleneck) else None


def _stem_of(weights: Mapping[str, Tensor], layers: int) -> Stem | None:
    """Return the stem that the first kernel shows; a 3x3 is taken for the one that halves the image by its stride."""
    first = weights.get("conv1.weight")
    is_small = layers in IMAGENET_BLOCKS and first is not None and tuple(first.shape[2:]) == (3, 3)
    return "3x3" if is_small else None


def fit_head(weights: Mapping[str, Tensor], num_classes: int) -> tuple[dict[str, Tensor], str | None]:
    """Return the weights without their head and a line that says so, if it is not one for so many classes.

    A head that fits stays, and there is no line. The caller's network has a fresh head for what is left out:
    `load_weights(network, network.state_dict() | weights)`.
    """
    head = weights.get(f"{_HEAD}weight")
    if head is not None and len(head) == num_classes:
        return dict(weights), None
    body = {name: tensor for name, tensor in weights.items() if not name.startswith(_HEAD)}
    were = "no last layer" if head is None else f"a last layer for {len(head):,} classes"
    return body, f"the weights have {were}; a new one for {num_classes:,} classes starts untrained"


def _read(path: Path) -> Any:
    """Return what a file holds: safetensors, or what `torch.save` wrote as far as it is tensors in plain containers."""
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; give --weights a .pth, .pt or .safetensors file")
    if not _is_from_torch(path):
        return read_weights(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    except Exception:  # the reader has no closed list of failures; its own words advise to trust the file
        raise CheckpointError(
            f"{path} is damaged or holds more than tensors, which could be code and is not loaded; "
            "save only its state dict, best as .safetensors"
        ) from None


def _is_from_torch(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    return start == b"PK" or start[:1] == b"\x80"  # a zip archive, or (before PyTorch 1.6) a bare pickle


def _our_name(name: str) -> str:
    """Return a tensor's name as torchvision and this project have it; a name that is not known stays as it is."""
    if match := _HUGGING_FACE_STEM.fullmatch(name):
        return f"{_PARTS[match[1]]}1.{match[2]}"
    if match := _HUGGING_FACE_LAYER.fullmatch(name):
        stage, block, layer = (int(match[number]) for number in (1, 2, 3))
        return f"layer{stage + 1}.{block}.{_PARTS[match[4]]}{layer + 1}.{match[5]}"
    if match := _HUGGING_FACE_SHORTCUT.fullmatch(name):
        return f"layer{int(match[1]) + 1}.{match[2]}.downsample.{int(match[3] == 'normalization')}.{match[4]}"
    if match := _OTHER_HEAD.fullmatch(name):
        return f"{_HEAD}{match[1]}"
    return name


def refuse_unfit(weights: Mapping[str, Tensor], described: Architecture, path: Path) -> None:
    """Raise ValueError, with names and shapes, if weights do not fit this network with as many classes as they have."""
    head = weights.get(f"{_HEAD}weight")
    with torch.device("meta"):  # no memory for weights that are only compared
        network = ResNet(described, described.num_classes if head is None or head.ndim == 0 else len(head))
    own_head = {name: tensor for name, tensor in network.state_dict().items() if name.startswith(_HEAD)}
    without_head = not any(name.startswith(_HEAD) for name in weights)
    try:
        refuse_misfit(network, own_head | dict(weights) if without_head else weights)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    for name, tensor in weights.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{path}: {name} has values that are not finite numbers; these weights are of no use")
