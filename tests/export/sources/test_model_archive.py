"""Model archives of TorchServe: their weights, names and preprocessing, and no code of theirs."""

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from export.cli import main
from export.errors import ExportError
from export.options import PrecisionOptions
from export.resolve_source import WeightsRequest, choose
from export.sources.imagenet import imagenet_classes
from export.sources.random_weights import random_network
from export.sources.trained import Source
from service.engine.engine import Engine
from service.model_files.card import read_card
from training.networks.resnet import architecture

NAMES = ("tabby cat", "beagle", "sports car")
# What `torch-model-archiver` puts in with --model-file; it must never run.
MODEL_CODE = "raise SystemExit('the code of an archive was run')\n"


def weights_of(network: str, classes: int) -> dict[str, Tensor]:
    return random_network(architecture(network), classes, seed=4).state_dict()


def archived(
    path: Path,
    weights: object,
    *,
    names: object = None,
    serialized: str = "model.pth",
    code: bool = True,
    **model: Any,
) -> Path:
    """Write an archive as torch-model-archiver 0.12 does."""
    described = {
        "modelName": "Pets_v2",
        "serializedFile": serialized,
        "handler": "image_classifier",
        "modelFile": "model.py",
        "modelVersion": "1.0",
    }
    manifest = {
        "createdOn": "30/11/2026 10:00:00",
        "runtime": "python",
        "model": {key: value for key, value in (described | model).items() if value is not None},
        "archiverVersion": "0.12.0",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest, indent=2))
        if code:
            archive.writestr("model.py", MODEL_CODE)
        if weights is not None:
            with archive.open(serialized, "w", force_zip64=True) as file:
                file.write(weights) if isinstance(weights, bytes) else torch.save(weights, file)
        if names is not None:
            archive.writestr("index_to_name.json", names if isinstance(names, str) else json.dumps(names))
    return path


def read(path: Path, *, labels: Path | None = None, said: list[str] | None = None) -> Source:
    request = WeightsRequest(None, (), None, None, str(path), None, labels, None)
    return choose(request, PrecisionOptions(), (said if said is not None else []).append)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pets.mar"


@pytest.mark.parametrize(
    "names",
    [
        {str(index): name for index, name in enumerate(NAMES)},
        {str(index): [f"x{index}", name] for index, name in enumerate(NAMES)},
        {"object_type_names": list(NAMES)},
        {str(index): NAMES[index] for index in (2, 0, 1)},
    ],
)
def test_the_names_of_an_archive_are_the_labels(path: Path, names: object) -> None:
    source = read(archived(path, weights_of("resnet8", 3), names=names))
    assert source.labels == NAMES
    assert source.synsets is None
    assert source.network.architecture.network == "resnet8"


def test_the_preprocessing_is_that_of_the_handler_for_any_network(path: Path) -> None:
    said: list[str] = []
    steps = read(archived(path, weights_of("resnet8", 3)), said=said).preprocessing
    assert (steps.shorter_side, steps.crop, steps.interpolation) == (256, (224, 224), "bilinear")
    assert steps.mean == pytest.approx((0.485, 0.456, 0.406))
    assert steps.standard_deviation == pytest.approx((0.229, 0.224, 0.225))
    assert any("handler image_classifier" in line for line in said)


def test_the_model_keeps_its_name_so_that_clients_keep_their_path(path: Path) -> None:
    said: list[str] = []
    assert read(archived(path, weights_of("resnet8", 3)), said=said).name == "pets_v2"
    assert any("'Pets_v2' gets the name pets_v2" in line for line in said)
    assert read(archived(path, weights_of("resnet8", 3), modelName="resnet-18")).name == "resnet-18"
    assert read(archived(path, weights_of("resnet8", 3), modelName=None)).name == "pets"
    assert read(archived(path, weights_of("resnet8", 3), modelName="../x/Ü")).name == "x-"


def test_the_weights_are_those_of_the_archive(path: Path) -> None:
    weights = weights_of("resnet8", 3)
    found = read(archived(path, weights)).network.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in weights.items())
    wrapped = {"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}
    assert torch.equal(read(archived(path, wrapped)).network.fc.weight, weights["fc.weight"])


def test_given_labels_replace_the_names(path: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    archive = archived(path, weights_of("resnet8", 3), names={"0": "only"})
    assert read(archive, labels=tmp_path / "labels.txt").labels == ("a", "b", "c")


def test_an_archive_without_names_has_numbers(path: Path) -> None:
    assert read(archived(path, weights_of("resnet8", 3))).labels == ("class_0", "class_1", "class_2")


def test_imagenets_names_keep_their_synsets_and_are_distinct(path: Path) -> None:
    names, synsets = imagenet_classes()
    both = list(zip(synsets, [name if index != 517 else "crane" for index, name in enumerate(names)], strict=True))
    both[134] = (both[134][0], "crane")
    archive = archived(path, weights_of("resnet18", 1000), names={str(index): pair for index, pair in enumerate(both)})
    source = read(archive)
    assert source.synsets == synsets
    assert (source.labels[134], source.labels[517]) == ("crane (1)", "crane (2)")
    assert source.published is None


@pytest.mark.parametrize("ending", [".mar", ".zip"])
def test_an_archive_is_recognised_by_its_content_too(tmp_path: Path, ending: str) -> None:
    path = archived(tmp_path / f"pets{ending}", weights_of("resnet8", 3), names=dict(enumerate(NAMES)))
    assert read(path).labels == NAMES


def test_torchscript_is_refused_with_the_command_that_saves_its_weights(path: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch advises against TorchScript, and archives have it nevertheless
        torch.jit.save(torch.jit.trace(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, 8, 8)), tmp_path / "model.pt")
    content = (tmp_path / "model.pt").read_bytes()
    archived(path, content, serialized="model.pt", code=False, modelFile=None)
    with pytest.raises(ExportError, match=r"is TorchScript, .*torch\.jit\.load\('model\.pt'\)\.state_dict\(\)"):
        read(path)


class Other(nn.Module):
    """A network of another family, as pickled with its code."""


@pytest.mark.parametrize(
    ("weights", "further", "said"),
    [
        (None, {}, "has no state dict: model.pth is not in it"),
        (None, {"serializedFile": None}, "has no state dict: its manifest names no serializedFile"),
        (b"onnx", {"serialized": "model.onnx"}, "is ONNX already"),
        ({}, {"handler": "object_detector"}, "has the handler 'object_detector', whose preprocessing is not known"),
        ({}, {"handler": "my_handler.py"}, "has the handler 'my_handler.py'"),
        ({}, {"handler": None}, "has the handler None"),
        ({"features.0.weight": torch.zeros(4, 3, 3, 3)}, {}, "holds no network that is known here"),
        (Other(), {}, "holds more than tensors"),
        (weights_of("resnet8", 3), {"names": {"0": "a", "1": "b"}}, "has 3 classes, there are 2 labels"),
        (weights_of("resnet8", 3), {"names": {"0": "a", "2": "b"}}, "must name the classes 0 to 1"),
        (weights_of("resnet8", 3), {"names": {"0": 1, "1": "b"}}, "must name the classes 0 to 1"),
        (weights_of("resnet8", 3), {"names": {}}, "must name the classes 0 to 1"),
        (weights_of("resnet8", 3), {"names": "[1"}, "index_to_name.json of .* is no JSON object"),
    ],
)
def test_an_archive_that_cannot_be_exported_is_refused_in_one_line(
    path: Path, weights: object, further: dict[str, Any], said: str
) -> None:
    archived(path, weights, **further)
    with pytest.raises(ExportError, match=said) as refused:
        read(path)
    assert "\n" not in str(refused.value)


def test_what_is_no_archive_is_refused(path: Path) -> None:
    with pytest.raises(ExportError, match="there is no file"):
        read(path)
    path.write_bytes(b"text")
    with pytest.raises(ExportError, match="cannot be read as a zip file"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.pth", b"")
    with pytest.raises(ExportError, match=r"has no MAR-INF/MANIFEST\.json"):
        read(path)


def test_an_archive_becomes_a_model_that_answers_with_its_labels(path: Path, tmp_path: Path) -> None:
    names = {str(index): [f"n0000000{index}", name] for index, name in enumerate(NAMES)}
    archived(path, weights_of("resnet18", 3), names=names, modelName="pets")
    done = CliRunner().invoke(main, ["--weights", str(path)])
    assert done.exit_code == 0, done.output
    engine = Engine(Path("models/pets/1/model.onnx").read_bytes(), providers="cpu")
    card = read_card(engine.metadata)
    assert (card.labels, card.network, card.preprocessing.crop) == (NAMES, "resnet18", (224, 224))
    assert "--default-model pets" in done.output
