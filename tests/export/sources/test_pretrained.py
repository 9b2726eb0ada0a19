"""Weights of others: recognised, checked, labelled, and never said to be better than their publisher says."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from export.errors import ExportError
from export.options import PrecisionOptions
from export.resolve_source import TRAINED, WeightsRequest, choose
from export.sources.imagenet import imagenet_classes
from export.sources.network_spec import NetworkSpec
from export.sources.pretrained import from_file, from_published, has_published
from export.sources.random_weights import random_network
from export.sources.trained import Source
from tests.support.servers.file_server import FileServer, serving
from training.networks.resnet import architecture
from training.weights import published as published_weights
from training.weights.checkpoint import sha256_of
from training.weights.published import MIRROR, cached_path, find_published


def weights_of(network: str, classes: int, shortcut: str | None = None) -> dict[str, Tensor]:
    return random_network(architecture(network, shortcut), classes, seed=4).state_dict()


def saved(weights: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path)
    return path


class Reading:
    """Calls `from_file` and keeps what it says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __call__(
        self, path: Path, choice: NetworkSpec | None = None, labels: Any = None, class_names: Any = None
    ) -> Source:
        return from_file(path, choice or NetworkSpec(), labels, class_names, self.said.append)


@pytest.fixture
def read() -> Reading:
    return Reading()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_recognised_by_itself(read: Reading, tmp_path: Path, suffix: str) -> None:
    weights = weights_of("resnet8", 3, "B")
    path = saved(weights, tmp_path / f"Own Model{suffix}")
    source = read(path)
    assert (source.network.architecture.network, source.network.architecture.shortcut) == ("resnet8", "B")
    assert torch.equal(source.network.layer2[0].conv1.weight, weights["layer2.0.conv1.weight"])
    assert not source.network.training
    assert (source.name, source.checkpoint_sha256) == ("own-model-resnet8", sha256_of(path))
    assert source.labels == ("class_0", "class_1", "class_2")
    assert source.synsets is source.published is source.dataset is None
    assert "numbered; give their names with --labels" in read.said[0]
    assert "assumed are 32 pixels on the shorter side, bilinear, and the colours of CIFAR-10" in read.said[1]


def test_labels_are_those_given_or_those_of_the_data(read: Reading, tmp_path: Path) -> None:
    path = saved(weights_of("resnet8", 3), tmp_path / "weights.pth")
    assert read(path, labels=("a", "b", "c")).labels == ("a", "b", "c")
    assert read(path, class_names=lambda described: (described.network, "b", "c")).labels == ("resnet8", "b", "c")
    with pytest.raises(ExportError, match="has 3 classes, there are 2 labels"):
        read(path, labels=("a", "b"))


def test_what_a_file_cannot_show_is_chosen(read: Reading, tmp_path: Path) -> None:
    path = saved(weights_of("resnet8", 3), tmp_path / "weights.pth")
    assert read(path).network.architecture.shortcut == "A"
    assert read(path, NetworkSpec(plain=True)).network.architecture.network == "plain8"
    assert read(path, NetworkSpec(depth=8, shortcut="A")).network.architecture.shortcut == "A"


@pytest.mark.parametrize(
    ("choice", "misfit"),
    [
        (NetworkSpec(depth=14), r"not the weights of resnet14: the file lacks layer1\.1\.conv1\.weight"),
        (NetworkSpec(shortcut="A"), r"has the unknown layer2\.0\.downsample\.0\.weight"),
        (NetworkSpec(depth=18), r"has conv1\.weight \(16, 3, 3, 3\) instead of \(64, 3, 7, 7\)"),
    ],
)
def test_a_misfit_is_refused_with_names_and_shapes(
    read: Reading, tmp_path: Path, choice: NetworkSpec, misfit: str
) -> None:
    path = saved(weights_of("resnet8", 3, "B"), tmp_path / "weights.pth")
    with pytest.raises(ExportError, match=misfit) as refusal:
        read(path, choice)
    assert "give --weights another file" in str(refusal.value) and "\n" not in str(refusal.value)


def test_files_that_hold_no_network_are_refused(read: Reading, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="there is no file"):
        read(tmp_path / "absent.pth")
    (tmp_path / "text.pth").write_text("weights")
    with pytest.raises(ExportError, match="not a readable safetensors file"):
        read(tmp_path / "text.pth")
    other = saved({"encoder.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ExportError, match="no network that is known here"):
        read(other)
    with pytest.raises(ExportError, match=r"has the unknown encoder\.weight"):
        read(other, NetworkSpec(depth=20))


def test_a_file_without_a_last_layer_is_refused(read: Reading, tmp_path: Path) -> None:
    body = {name: tensor for name, tensor in weights_of("resnet8", 3).items() if not name.startswith("fc.")}
    with pytest.raises(ExportError, match="has no last layer"):
        read(saved(body, tmp_path / "weights.pth"))


@pytest.fixture(scope="module")
def imagenet_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(weights_of("resnet18", 1000), tmp_path_factory.mktemp("weights") / "resnet18.pth")


@pytest.fixture
def publisher(imagenet_weights: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server of weights that the table says are torchvision's for 18 layers."""
    digest = sha256_of(imagenet_weights)[:8]
    with serving(imagenet_weights.read_bytes()) as server:
        row = find_published(18, "torchvision-v1")
        fake = dataclasses.replace(row, url=f"{server.url}/resnet18-{digest}.pth", digest=digest)
        monkeypatch.setattr(published_weights, "PUBLISHED", (fake,))
        monkeypatch.delenv(MIRROR)
        yield server


def test_published_weights_come_with_labels_preprocessing_and_claims(publisher: FileServer) -> None:
    said: list[str] = []
    source = from_published(NetworkSpec(depth=18), "torchvision-v1", None, said.append)
    row = published_weights.PUBLISHED[0]
    assert (source.labels, source.synsets) == imagenet_classes()
    assert (source.name, source.dataset) == ("imagenet-resnet18", "imagenet")
    assert source.checkpoint_sha256 == sha256_of(cached_path(row))
    assert source.preprocessing.model_dump() == {
        "shorter_side": 256,
        "crop": (224, 224),
        "interpolation": "bilinear",
        "antialias": True,
        "mean": (0.485, 0.456, 0.406),
        "standard_deviation": (0.229, 0.224, 0.225),
    }
    assert source.published is not None
    assert (source.published.name, source.published.url, source.published.top1) == (row.name, row.url, row.top1)
    assert not any("assumed" in line for line in said)


def test_a_file_that_was_published_is_known_by_its_digest(
    publisher: FileServer, imagenet_weights: Path, read: Reading
) -> None:
    source = read(imagenet_weights)
    assert source.published is not None and source.published.name == "torchvision-v1"
    assert publisher.requests == []


def test_published_weights_that_are_others_are_refused(publisher: FileServer) -> None:
    publisher.content = publisher.content[:-1] + b"x"
    with pytest.raises(ExportError, match="and is removed; fetch it elsewhere"):
        from_published(NetworkSpec(depth=18), None, None, lambda _line: None)
    assert not cached_path(published_weights.PUBLISHED[0]).exists()


def test_an_imagenet_file_of_unknown_origin_claims_nothing(imagenet_weights: Path, read: Reading) -> None:
    source = read(imagenet_weights, NetworkSpec(depth=18))
    assert source.published is None
    assert source.labels == imagenet_classes()[0]
    assert "assumed are 256 pixels on the shorter side, bilinear, and the colours of ImageNet" in read.said[1]


def test_only_what_was_published_is_looked_for() -> None:
    assert has_published(NetworkSpec(depth=50)) and has_published(NetworkSpec(depth=50, shortcut="B", stride_in="3x3"))
    for choice in (
        NetworkSpec(),
        NetworkSpec(depth=20),
        NetworkSpec(depth=50, stride_in="1x1"),
        NetworkSpec(depth=34, plain=True),
    ):
        assert not has_published(choice)


@pytest.mark.parametrize(
    ("choice", "name", "message"),
    [
        (NetworkSpec(), None, "which network"),
        (NetworkSpec(depth=20), None, "no published weights for 20 layers; there are for 18, 34, 50, 101, 152"),
        (NetworkSpec(depth=18), "torchvision-v2", "choose one of torchvision-v1, timm-a1, timm-a2, timm-a3"),
        (NetworkSpec(depth=50, stride_in="1x1"), None, "leave out --variant v1"),
        (NetworkSpec(depth=50, shortcut="C"), None, "leave out --variant C"),
        (NetworkSpec(depth=34, plain=True), None, "leave out --variant plain"),
    ],
)
def test_unpublished_weights_are_reported_in_one_line(choice: NetworkSpec, name: str | None, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        from_published(choice, name, None, lambda _line: None)


def prefixed(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_a_prefix_of_all_names_is_taken_off(read: Reading, tmp_path: Path, suffix: str) -> None:
    weights = weights_of("resnet8", 3, "B")
    source = read(saved(prefixed("model._orig_mod.", weights), tmp_path / f"lightning{suffix}"))
    assert source.network.architecture.network == "resnet8"
    assert torch.equal(source.network.fc.weight, weights["fc.weight"])


def test_choices_that_do_not_fit_can_be_left_out(read: Reading, tmp_path: Path) -> None:
    path = saved(weights_of("resnet8", 3, "B"), tmp_path / "weights.pth")
    for choice in (NetworkSpec(depth=14), NetworkSpec(shortcut="A")):
        with pytest.raises(ExportError, match="or leave out --depth and --variant to export the resnet8 that this is"):
            read(path, choice)
    assert read(path).network.architecture.network == "resnet8"


def test_an_unknown_network_is_told_by_its_names_and_not_to_name_a_depth(read: Reading, tmp_path: Path) -> None:
    other = saved({"stem.weight": torch.zeros(2, 2), "blocks.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ExportError, match=r"its tensors are stem\.weight, blocks\.0\.weight, …; give") as refusal:
        read(other)
    assert "--depth" not in str(refusal.value)


def test_a_file_is_taken_as_a_checkpoint_too(tmp_path: Path) -> None:
    weights = weights_of("resnet8", 3)
    path = saved({"state_dict": prefixed("net.", weights), "epoch": 1}, tmp_path / "own.ckpt")
    asked = WeightsRequest(None, (), path, None, TRAINED, None, None, None)
    source = choose(asked, PrecisionOptions(), lambda _line: None)
    assert torch.equal(source.network.conv1.weight, weights["conv1.weight"])


def test_a_stem_for_small_images_is_read_from_the_first_kernel(read: Reading, tmp_path: Path) -> None:
    weights = random_network(architecture("resnet18", stem="3x3"), 5, seed=4).state_dict()
    source = read(saved(weights, tmp_path / "small.safetensors"), labels=tuple("abcde"))
    assert source.network.architecture.stem == "3x3"
    assert (source.preprocessing.shorter_side, source.preprocessing.crop) == (64, (64, 64))
    assert source.network.features(torch.zeros(1, 3, 64, 64)).shape == (1, 512, 4, 4)
