"""Where a run starts: whose weights, which network, which images."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.support.runs.run_records import record_of
from tests.support.runs.shipped import write_shipped
from tests.training.weights.test_conversion import as_hugging_face, as_timm, as_torchvision, settled
from training.networks.colour_statistics import IMAGENET
from training.networks.resnet import ResNet, build
from training.recipes.catalog import RECIPES
from training.runs import shipped
from training.runs.warm_start import Start, starting_point
from training.weights import published as published_weights
from training.weights.checkpoint import CheckpointError
from training.weights.published import PublishedError

RECIPE = RECIPES["finetune"]


class Said(list[str]):
    """Collects the lines that would be shown."""

    def __call__(self, line: str) -> None:
        self.append(line)


def start(weights: Path | None, log: Said | None = None, *fixed: str, **changes: Any) -> Start:
    recipe = dataclasses.replace(RECIPE, **changes)
    if weights is not None:
        recipe = dataclasses.replace(recipe, weights=str(weights))
    found = starting_point(recipe, frozenset(fixed), None, Said() if log is None else log)
    assert found is not None
    return found


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Path:
        raise PublishedError("no connection")

    monkeypatch.setattr("training.runs.warm_start.fetch_published", refuse)


@pytest.mark.parametrize("style", [as_torchvision, as_timm, as_hugging_face])
@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
def test_the_network_follows_the_weights_and_answers_as_the_one_they_are_of(
    tmp_path: Path, network: str, style: Callable[[ResNet], dict[str, Tensor]]
) -> None:
    source, said = settled(network), Said()
    torch.save(style(source), tmp_path / "weights.pth")
    found = start(tmp_path / "weights.pth", said)
    assert found.recipe.network == network
    assert any(f"has the weights of {network}, not resnet50; this network is trained" in line for line in said) == (
        network != RECIPE.network
    )
    model = build(network, num_classes=7)
    found.put_into(model, tuple("abcdefg"), said)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(model.eval()(images), source(images))


def test_images_are_those_of_the_pretrained_network_not_of_the_recipe(tmp_path: Path) -> None:
    torch.save(as_torchvision(settled("resnet18")), tmp_path / "weights.pth")
    found = start(tmp_path / "weights.pth")
    assert found.mean == list(IMAGENET.mean)
    assert (found.recipe.image_size, found.recipe.test_size, found.recipe.test_shorter_side) == (224, None, 256)
    torch.save(as_torchvision(settled("resnet20")), tmp_path / "small.pth")
    small = start(tmp_path / "small.pth")
    assert (small.recipe.image_size, small.recipe.test_shorter_side, small.recipe.crop_padding) == (32, 32, 4)
    assert small.mean != found.mean


def test_sizes_that_the_user_has_set_stay(tmp_path: Path) -> None:
    torch.save(as_torchvision(settled("resnet18")), tmp_path / "weights.pth")
    found = start(tmp_path / "weights.pth", Said(), "image_size", image_size=112)
    assert (found.recipe.image_size, found.recipe.test_shorter_side) == (112, 128)


def test_a_published_file_has_the_size_that_it_was_evaluated_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(as_torchvision(settled("resnet18")), tmp_path / "renamed.pth")
    digest = published_weights.PUBLISHED[0].digest
    monkeypatch.setattr("training.runs.warm_start.sha256_of", lambda _: digest + "0" * 56)
    assert start(tmp_path / "renamed.pth").recipe.test_shorter_side == published_weights.PUBLISHED[0].shorter_side


def test_a_network_that_the_user_has_set_is_not_changed_and_a_misfit_is_told_by_names_and_shapes(
    tmp_path: Path,
) -> None:
    torch.save(as_torchvision(settled("resnet18")), tmp_path / "weights.pth")
    with pytest.raises(
        ValueError, match=r"not the weights of resnet50: the file lacks .*layer1.0.conv1.weight"
    ) as error:
        start(tmp_path / "weights.pth", Said(), "network")
    assert "leave out --set network to train the resnet18 that this is" in str(error.value)


def test_a_tensor_of_another_shape_is_refused_by_its_name_and_both_shapes(tmp_path: Path) -> None:
    weights = as_torchvision(settled("resnet18")) | {"layer3.1.conv2.weight": torch.zeros(256, 8, 3, 3)}
    torch.save(weights, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"layer3.1.conv2.weight \(256, 8, 3, 3\) instead of \(256, 256, 3, 3\)"):
        start(tmp_path / "weights.pth")


def test_weights_of_no_network_here_are_compared_with_that_of_the_recipe(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "vgg.pth")
    with pytest.raises(ValueError, match=r"not the weights of resnet50: the file lacks .*unknown features.0.weight"):
        start(tmp_path / "vgg.pth")


def test_another_head_is_replaced_and_that_is_said(tmp_path: Path) -> None:
    torch.save(as_torchvision(settled("resnet18")), tmp_path / "weights.pth")
    said, model = Said(), build("resnet18", num_classes=3)
    own = model.fc.weight.clone()
    start(tmp_path / "weights.pth", said).put_into(model, ("a", "b", "c"), said)
    assert said[-1] == "the weights have a last layer for 7 classes; a new one for 3 classes starts untrained"
    assert torch.equal(model.fc.weight, own)


def write_run(folder: Path, labels: list[str], pixel_mean: Tensor | None = None) -> Path:
    """A run folder as far as a start needs it: run.json and the weights of a ResNet-8."""
    model = settled("resnet8", num_classes=len(labels))
    folder.mkdir()
    extra = {} if pixel_mean is None else {"pixel_mean": pixel_mean}
    save_file(dict(model.state_dict()) | extra, folder / "weights.safetensors")
    facts = record_of("resnet8", labels, shorter_side=36)
    facts["preprocessing"] |= {"mean": [0.1, 0.2, 0.3], "standard_deviation": [0.4, 0.5, 0.6]}
    (folder / "run.json").write_text(json.dumps(facts))
    return folder


@pytest.mark.parametrize("given", ["", "weights.safetensors"])
def test_a_run_of_this_project_brings_its_network_its_images_and_its_head(tmp_path: Path, given: str) -> None:
    run = write_run(tmp_path / "run", ["x", "y"])
    said, model = Said(), build("resnet8", num_classes=2)
    found = start(run / given, said)
    assert found.mean == [0.1, 0.2, 0.3] and found.standard_deviation == [0.4, 0.5, 0.6]
    assert (found.recipe.image_size, found.recipe.test_shorter_side) == (32, 36)
    found.put_into(model, ("x", "y"), said)
    assert torch.equal(model.fc.weight, settled("resnet8", num_classes=2).fc.weight)
    assert said[-1] == "the last layer of the weights, for 2 classes, is kept"


def test_a_head_for_as_many_other_classes_is_replaced(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ["x", "y"])
    said, model = Said(), build("resnet8", num_classes=2)
    own = model.fc.weight.clone()
    start(run, said).put_into(model, ("u", "v"), said)
    assert torch.equal(model.fc.weight, own) and "is for other classes" in said[-1]


def test_a_mean_image_comes_with_the_weights_and_is_stretched_to_the_given_size(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", ["x", "y"], torch.full((3, 32, 32), 0.25))
    model = build("resnet8", num_classes=2)
    found = start(run, Said(), "image_size", image_size=48)
    found.put_into(model, ("x", "y"), Said())
    assert found.recipe.subtract == "channel_mean"
    assert model.pixel_mean is not None and torch.equal(model.pixel_mean, torch.full((3, 48, 48), 0.25))


def test_a_folder_of_hugging_face_is_taken_by_its_name(tmp_path: Path) -> None:
    save_file(as_hugging_face(settled("resnet18")), tmp_path / "model.safetensors")
    assert start(tmp_path).recipe.network == "resnet18"


def test_for_a_folder_without_weights_the_error_names_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="give"):
        start(tmp_path)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of shipped runs: the small CIFAR-10 network alone, as in a wheel."""
    folder = tmp_path / "results"
    shutil.copytree(shipped.RESULTS / shipped.SMALL, folder / shipped.SMALL)
    monkeypatch.setattr(shipped, "RESULTS", folder)
    return folder


@pytest.mark.usefixtures("no_network", "results")
def test_without_weights_and_without_a_network_the_shipped_one_is_taken_and_that_is_one_line() -> None:
    said = Said()
    found = start(None, said)
    assert found.recipe.network == "resnet20" and found.recipe.image_size == 32
    (line,) = said
    assert "no connection" in line and "resnet20 at 32 x 32 pixels" in line


@pytest.mark.usefixtures("no_network")
def test_a_run_of_everyday_things_is_taken_with_its_stem_and_its_size(results: Path) -> None:
    write_shipped(results, "everyday-resnet18", "resnet18", side=48)
    said = Said()
    found = start(None, said)
    assert (found.recipe.network, found.recipe.stem, found.recipe.image_size) == ("resnet18", "3x3", 48)
    assert found.recipe.weights == str(results / "everyday-resnet18" / "weights.safetensors")
    assert found.facts["instead_of"] == "published weights: no connection"
    (line,) = said
    assert "Starting from everyday-resnet18, which comes with this project, resnet18 with the stem 3x3 at 48 x" in line
    assert line.endswith("not the recipe's resnet50")


@pytest.mark.usefixtures("no_network")
def test_of_several_everyday_runs_that_of_the_default_model_is_taken_or_the_one_of_the_network_that_is_set(
    results: Path,
) -> None:
    for network in ("resnet18", "resnet50"):
        write_shipped(results, f"everyday-{network}", network)
    assert start(None).recipe.network == "resnet18"
    assert start(None, None, "network", network="resnet50").recipe.stem == "3x3"
    assert start(None, None, "network", network="resnet50").recipe.network == "resnet50"


@pytest.mark.usefixtures("no_network", "results")
def test_the_shipped_network_does_not_stand_in_for_one_that_the_user_has_set() -> None:
    with pytest.raises(ValueError, match=r"no weights to start resnet50 from: no connection; give --weights FILE"):
        start(None, Said(), "network")


@pytest.mark.usefixtures("no_network", "results")
def test_nothing_stands_in_for_published_weights_that_the_user_has_set() -> None:
    with pytest.raises(ValueError, match="no connection; give --weights FILE, or --set weights=null"):
        start(None, Said(), "weights")


def test_published_weights_are_taken_where_they_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(as_torchvision(settled("resnet50")), tmp_path / "resnet50.pth")
    monkeypatch.setattr("training.runs.warm_start.fetch_published", lambda *_: tmp_path / "resnet50.pth")
    found = start(None)
    assert found.recipe.network == "resnet50" and found.facts["classes"] == 7
    assert found.recipe.weights == str(tmp_path / "resnet50.pth")


def test_a_recipe_without_weights_starts_at_chance() -> None:
    assert starting_point(RECIPES["modern-resnet20"], frozenset(), None, Said()) is None


def test_a_run_that_goes_on_needs_the_file_no_more(tmp_path: Path) -> None:
    torch.save(as_torchvision(settled("resnet18")), tmp_path / "weights.pth")
    found = start(tmp_path / "weights.pth")
    earlier = {
        "recipe": json.loads(json.dumps(dataclasses.asdict(found.recipe))),
        "preprocessing": {"mean": found.mean, "standard_deviation": found.standard_deviation},
        "start": found.facts,
    }
    (tmp_path / "weights.pth").unlink()
    again = starting_point(RECIPE, frozenset(), earlier, Said())
    assert again is not None and again.recipe == found.recipe and again.source is None
