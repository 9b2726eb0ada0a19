"""Checkpoints of training tools: the network is found under any key, behind any prefix, with any last layer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.training.weights.test_conversion import as_hugging_face, as_timm, as_torchvision, logits, settled
from training.weights.checkpoint import CheckpointError
from training.weights.conversion import read_named, recognise

Weights = dict[str, Tensor]
MODEL = settled("resnet8")


def named(prefix: str, weights: Weights | None = None) -> Weights:
    return {prefix + name: tensor for name, tensor in (weights or as_torchvision(MODEL)).items()}


def zeros(weights: Weights) -> Weights:
    return {name: torch.zeros_like(tensor) for name, tensor in weights.items()}


def split_off_head(body: str, head: str, weights: Weights | None = None) -> Weights:
    weights = weights or as_torchvision(MODEL)
    return {
        head + name.removeprefix("fc.") if name.startswith("fc.") else body + name: tensor
        for name, tensor in weights.items()
    }


def adam(weights: Weights) -> dict[str, Any]:
    """An optimizer's state, by number as PyTorch saves it and by name as others do."""
    moments = {"exp_avg": zeros(weights), "exp_avg_sq": zeros(weights)}
    state = {index: {"step": torch.tensor(1.0), "exp_avg": tensor} for index, tensor in enumerate(weights.values())}
    return {"state": state, "param_groups": [{"lr": 0.1, "params": [0, 1]}], "by_name": moments}


def read(content: Any, tmp_path: Path, said: list[str] | None = None) -> Weights:
    torch.save(content, tmp_path / "file.pth")
    return read_named(tmp_path / "file.pth", (said if said is not None else []).append)


def is_the_network(weights: Weights) -> bool:
    described = recognise(weights)
    assert described is not None and described.network == "resnet8"
    return torch.equal(logits("resnet8", weights), logits("resnet8", as_torchvision(MODEL)))


@pytest.mark.parametrize(
    "prefix",
    [
        "model.",
        "net.",
        "module.",
        "model._orig_mod.",
        "_orig_mod.model.",
        "module.model.module.",
        "backbone.body.",
        "a.b.c.d.",
    ],
)
@pytest.mark.parametrize("style", [as_torchvision, as_timm, as_hugging_face])
def test_one_prefix_of_all_names_is_taken_off(tmp_path: Path, prefix: str, style: Any) -> None:
    said: list[str] = []
    assert is_the_network(read({"state_dict": named(prefix, style(MODEL)), "epoch": 3}, tmp_path, said))
    assert said == []
    save_file(
        {name: tensor.contiguous() for name, tensor in named(prefix, style(MODEL)).items()}, tmp_path / "f.safetensors"
    )
    assert is_the_network(read_named(tmp_path / "f.safetensors"))


@pytest.mark.parametrize(
    "keys",
    [
        ("state_dict",),
        ("model",),
        ("net",),
        ("weights",),
        ("params",),
        ("ema",),
        ("zoo_7",),
        ("a", "b"),
        ("x", "y", "z"),
    ],
)
def test_the_only_mapping_of_tensors_is_taken_under_any_key(tmp_path: Path, keys: tuple[str, ...]) -> None:
    content: Any = as_torchvision(MODEL)
    for key in reversed(keys):
        content = {key: content, "epoch": 7, "best_acc": torch.tensor(0.9), "lr": {"mean": torch.zeros(3)}}
    said: list[str] = []
    assert is_the_network(
        read(content | {"optimizer": adam(as_torchvision(MODEL)), "rng": {"cpu": torch.zeros(9)}}, tmp_path, said)
    )
    assert said == []


@pytest.mark.parametrize("key", ["optimizer", "optim_state", "optimizer_state_dict", "opt", "model_optimizer"])
def test_what_an_optimizer_keeps_is_no_network(tmp_path: Path, key: str) -> None:
    moments = adam(as_torchvision(MODEL))
    assert is_the_network(read({key: moments, "zoo": as_torchvision(MODEL)}, tmp_path))
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read({key: moments, "epoch": 1}, tmp_path)


@pytest.mark.parametrize(
    ("raw", "averaged"),
    [
        ("model", "model_ema"),
        ("state_dict", "state_dict_ema"),
        ("model", "ema"),
        ("net", "ema_model"),
        ("zoo", "swa_net"),
    ],
)
def test_of_raw_and_averaged_weights_the_averaged_are_taken_and_both_named(
    tmp_path: Path, raw: str, averaged: str
) -> None:
    said: list[str] = []
    content = {raw: zeros(as_torchvision(MODEL)), averaged: {"n_averaged": torch.tensor(3)} | named("module.")}
    assert is_the_network(read(content, tmp_path, said))
    assert said == [f"file.pth holds several state dicts, {raw}, {averaged}: {averaged} is taken"]


def test_of_several_networks_the_most_usual_key_is_taken_and_all_are_named(tmp_path: Path) -> None:
    said: list[str] = []
    content = {"discriminator": zeros(as_torchvision(MODEL)), "state_dict": named("model.")}
    assert is_the_network(read(content, tmp_path, said))
    assert said == ["file.pth holds several state dicts, discriminator, state_dict: state_dict is taken"]


def test_networks_that_are_as_usual_as_each_other_are_refused_by_name_and_one_alone_is_taken(tmp_path: Path) -> None:
    content = {"student": named("backbone."), "teacher": zeros(as_torchvision(MODEL))}
    with pytest.raises(CheckpointError, match="several state dicts, student, teacher; save only the intended one"):
        read(content, tmp_path)
    assert is_the_network(read(content["student"], tmp_path))
    flat = named("encoder_q.") | named("encoder_k.", zeros(as_torchvision(MODEL)))
    with pytest.raises(CheckpointError, match=r"several networks, encoder_k\., encoder_q\.; save only the tensors"):
        read(flat, tmp_path)


def test_averaged_weights_beside_the_others_in_one_mapping_are_taken(tmp_path: Path) -> None:
    said: list[str] = []
    flat = named("online_model.", zeros(as_torchvision(MODEL))) | named("ema_model.") | {"initted": torch.tensor(True)}
    assert is_the_network(read(flat, tmp_path, said))
    assert "online_model" in said[0] and "ema_model. is taken" in said[0]


@pytest.mark.parametrize(
    "head", ["head.fc.", "head.", "classifier.", "fc.1.", "model.fc.1.", "last_linear.", "cls_head.linear."]
)
@pytest.mark.parametrize("body", ["", "backbone.", "model.backbone."])
def test_a_last_layer_elsewhere_is_found(tmp_path: Path, body: str, head: str) -> None:
    said: list[str] = []
    assert is_the_network(read({"meta": {}, "state_dict": split_off_head(body, head)}, tmp_path, said))
    assert said == []


def test_a_detectors_backbone_is_taken_without_what_lies_beside_it(tmp_path: Path) -> None:
    body = {name: tensor for name, tensor in as_torchvision(MODEL).items() if not name.startswith("fc.")}
    rest = {"neck.conv.weight": torch.zeros(8, 8, 1, 1), "roi_head.fc.weight": torch.zeros(4, 256)}
    said: list[str] = []
    weights = read({"state_dict": named("backbone.", body) | rest}, tmp_path, said)
    assert weights.keys() == body.keys()
    assert said == ["left out of file.pth, as no part of the network: neck.conv.weight, roi_head.fc.weight"]


def test_a_last_layer_of_several_is_left_out_and_named(tmp_path: Path) -> None:
    weights = {name: tensor for name, tensor in as_torchvision(MODEL).items() if not name.startswith("fc.")}
    head = {
        "fc.0.weight": torch.zeros(64, 64),
        "fc.0.bias": torch.zeros(64),
        "fc.2.weight": torch.zeros(7, 64),
        "fc.2.bias": torch.zeros(7),
    }
    said: list[str] = []
    assert read(weights | head, tmp_path, said).keys() == weights.keys()
    assert "left out" in said[0] and "fc.0.weight" in said[0]


def test_names_that_clash_without_their_wrappers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"two tensors of this file are both conv1\.weight; save only"):
        read(as_torchvision(MODEL) | named("module."), tmp_path)
