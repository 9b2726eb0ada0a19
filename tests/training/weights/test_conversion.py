"""Files of other projects, made here with the names and shapes that those projects use."""

import functools
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from training.networks.resnet import ResNet, architecture, build, load_weights
from training.weights.checkpoint import CheckpointError
from training.weights.conversion import fit_head, read_foreign

Weights = dict[str, Tensor]


@functools.cache
def settled(network: str, num_classes: int = 7) -> ResNet:
    """A network whose batch norms have statistics of their own, so that none of them can be left out unnoticed."""
    torch.manual_seed(0)
    model = build(network, num_classes=num_classes).eval()
    for name, buffer in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            buffer.uniform_(0.5, 1.5)
    return model


def as_torchvision(model: ResNet) -> Weights:
    return dict(model.state_dict())


def as_timm(model: ResNet) -> Weights:
    """timm's base ResNets have the same names; its published files leave out the counts of batches."""
    return {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}


def as_hugging_face(model: ResNet) -> Weights:
    """The names of `ResNetForImageClassification`, put together from ours word by word."""
    kinds = {"conv": "convolution", "bn": "normalization"}
    renamed: Weights = {}
    for name, tensor in model.state_dict().items():
        words = name.split(".")
        if words[0] == "fc":
            new = ["classifier", "1", words[1]]
        elif words[0] in ("conv1", "bn1"):
            new = ["resnet", "embedder", "embedder", kinds[words[0][:-1]], words[1]]
        else:
            new = ["resnet", "encoder", "stages", str(int(words[0][5:]) - 1), "layers", words[1]]
            if words[2] == "downsample":
                new += ["shortcut", ("convolution", "normalization")[int(words[3])], words[4]]
            else:
                new += ["layer", str(int(words[2][-1]) - 1), kinds[words[2][:-1]], words[3]]
        renamed[".".join(new)] = tensor
    return renamed


def as_akamaster(model: ResNet) -> dict[str, Any]:
    """Saved from a data-parallel module, with `linear` for the head, inside what the training script saves."""
    renamed = {f"module.{name.replace('fc.', 'linear.')}": tensor for name, tensor in model.state_dict().items()}
    return {"state_dict": renamed, "best_prec1": 91.7}


def as_averaged(model: ResNet) -> dict[str, Any]:
    """What torchvision's reference script saves: raw weights, and the averaged ones that are to be used."""
    averaged = {f"module.{name}": tensor for name, tensor in model.state_dict().items()}
    raw = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    return {"model": raw, "model_ema": {"n_averaged": torch.tensor(3)} | averaged, "epoch": 89}


def logits(network: str, weights: Weights, num_classes: int = 7) -> Tensor:
    model = build(network, num_classes=num_classes)
    load_weights(model, weights)
    side = model.architecture.image_size // 4
    with torch.inference_mode():
        result: Tensor = model.eval()(torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1)))
    return result


@pytest.mark.parametrize(
    ("network", "style"),
    [
        ("resnet50", as_torchvision),
        ("resnet18", as_timm),
        ("resnet18", as_hugging_face),
        ("resnet50", as_hugging_face),
        ("resnet20", as_akamaster),
        ("resnet18", as_averaged),
    ],
)
def test_weights_of_other_projects_give_the_logits_of_the_network_they_are_of(
    tmp_path: Path, network: str, style: Callable[[ResNet], dict[str, Any]]
) -> None:
    model = settled(network)
    torch.save(style(model), tmp_path / "weights.pth")
    found = read_foreign(tmp_path / "weights.pth", architecture(network))
    assert torch.equal(logits(network, found), logits(network, dict(model.state_dict())))


def test_safetensors_and_files_from_before_zip_archives_are_read_by_their_content(tmp_path: Path) -> None:
    model = settled("resnet20")
    save_file(as_hugging_face(model), tmp_path / "weights.bin")
    torch.save(as_timm(model), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    expected = logits("resnet20", dict(model.state_dict()))
    for file in ("weights.bin", "old.pth"):
        assert torch.equal(logits("resnet20", read_foreign(tmp_path / file, architecture("resnet20"))), expected)


def test_half_precision_becomes_float32(tmp_path: Path) -> None:
    torch.save({name: tensor.half() for name, tensor in as_timm(settled("resnet8")).items()}, tmp_path / "half.pth")
    found = read_foreign(tmp_path / "half.pth", architecture("resnet8"))
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}


def deep_stem(weights: Weights) -> Weights:
    """timm's resnet18d: three small convolutions for the large one, average pooling before the shortcut's 1x1."""
    stem = {"conv1.0.weight": (32, 3, 3, 3), "conv1.3.weight": (32, 32, 3, 3), "conv1.6.weight": (64, 32, 3, 3)}
    kept = {name.replace("downsample.1", "downsample.2"): tensor for name, tensor in weights.items()}
    kept = {name.replace("downsample.0", "downsample.1"): tensor for name, tensor in kept.items()}
    del kept["conv1.weight"]
    return {name: torch.zeros(shape) for name, shape in stem.items()} | kept


def group_norm(weights: Weights) -> Weights:
    """timm's resnet18_gn: norms without running statistics."""
    return {name: tensor for name, tensor in weights.items() if "running_" not in name}


def grouped(weights: Weights) -> Weights:
    """As in a ResNeXt: the same names, 3x3 convolutions of another shape."""
    return weights | {"layer1.0.conv2.weight": torch.zeros(64, 2, 3, 3)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (deep_stem, r"weights of resnet18: the file lacks conv1.weight, .*; has the unknown .*conv1.0.weight"),
        (group_norm, r"the file lacks bn1.running_mean, bn1.running_var, .* more"),
        (grouped, r"has layer1.0.conv2.weight \(64, 2, 3, 3\) instead of \(64, 64, 3, 3\)"),
    ],
)
def test_another_network_is_refused_with_the_names_and_shapes_that_do_not_fit(
    tmp_path: Path, change: Callable[[Weights], Weights], words: str
) -> None:
    torch.save(change(as_timm(settled("resnet18"))), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=words):
        read_foreign(tmp_path / "other.pth", architecture("resnet18"))


class Opens:
    """A pickle that would create a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_its_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": as_timm(settled("resnet8")), "extra": Opens(tmp_path / "ran")}, tmp_path / "zip.pth")
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Opens(tmp_path / "ran")))
    for file in ("zip.pth", "bare.pth"):
        with pytest.raises(CheckpointError, match="holds more than tensors"):
            read_foreign(tmp_path / file, architecture("resnet8"))
    assert not (tmp_path / "ran").exists()


def test_damaged_and_strange_files_are_refused_in_one_line(tmp_path: Path) -> None:
    whole = tmp_path / "whole.pth"
    torch.save(as_timm(settled("resnet8")), whole)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:5000])
    (tmp_path / "text.safetensors").write_text("not tensors")
    (tmp_path / "empty.pt").write_bytes(b"")
    torch.save([torch.zeros(1)], tmp_path / "list.pt")
    torch.save({}, tmp_path / "nothing.pt")
    torch.save({"conv1.weight": "words"}, tmp_path / "words.pt")
    for file in ("cut.pth", "text.safetensors", "empty.pt", "list.pt", "nothing.pt", "words.pt", "missing.pt"):
        with pytest.raises(CheckpointError, match=file) as raised:
            read_foreign(tmp_path / file, architecture("resnet8"))
        assert "\n" not in str(raised.value)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    weights = as_timm(settled("resnet8"))
    torch.save(weights | {"bn1.bias": torch.full((16,), float("nan"))}, tmp_path / "diverged.pth")
    with pytest.raises(ValueError, match=r"bn1\.bias has values that are not finite"):
        read_foreign(tmp_path / "diverged.pth", architecture("resnet8"))


def test_a_head_for_other_classes_is_left_out_with_a_message_and_the_rest_is_loaded() -> None:
    source, target = settled("resnet8", num_classes=10), build("resnet8", num_classes=3)
    kept, message = fit_head(source.state_dict(), 3)
    assert message == "the weights have a last layer for 10 classes; a new one for 3 classes starts untrained"
    own_head = target.fc.weight.clone()
    load_weights(target, target.state_dict() | kept)
    assert torch.equal(target.fc.weight, own_head)
    assert torch.equal(target.conv1.weight, source.conv1.weight)


def test_a_head_for_as_many_classes_stays_and_nothing_is_said() -> None:
    weights = dict(settled("resnet8", num_classes=3).state_dict())
    kept, message = fit_head(weights, 3)
    assert kept.keys() == weights.keys() and message is None


def test_a_file_without_a_head_is_taken_and_the_new_one_announced(tmp_path: Path) -> None:
    backbone = {name: tensor for name, tensor in as_hugging_face(settled("resnet18")).items() if "resnet." in name}
    bare = {name.removeprefix("resnet."): tensor for name, tensor in backbone.items()}
    torch.save(bare, tmp_path / "backbone.pth")
    found = read_foreign(tmp_path / "backbone.pth", architecture("resnet18"))
    kept, message = fit_head(found, 5)
    assert not any(name.startswith("fc.") for name in kept)
    assert message == "the weights have no last layer; a new one for 5 classes starts untrained"
