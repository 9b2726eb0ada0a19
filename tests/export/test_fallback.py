"""`export-onnx --depth N` alone: a run of one's own, else published weights, else a shipped run, and what is said."""

import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from export.cli import main
from export.sources.network_spec import NetworkSpec
from export.sources.trained import find_shipped, from_run
from service.engine.engine import Engine
from service.inference.classifier import Classifier
from service.inference.registry import load
from service.model_files.card import read_card
from service.model_files.serving_set import find_models
from tests.export.conftest import Trained, copy_run
from tests.export.sources.test_trained import change_run
from tests.support.runs.shipped import write_shipped
from training.runs import shipped


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of shipped runs: one of 18 layers."""
    folder = tmp_path / "work" / "training" / "results"
    monkeypatch.setattr(shipped, "RESULTS", folder)
    write_shipped(folder, "everyday-resnet18", "resnet18")
    return folder


def export_onnx(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_without_a_connection_the_shipped_run_of_that_depth_is_exported_checked_and_served() -> None:
    result = export_onnx("--depth", 18)
    assert result.exit_code == 0, result.output
    said = result.stderr
    assert "no finished run under runs/ fits depth 18; taking published weights" in said
    assert re.search(r"published weights are not available: cannot fetch \S+: no connection; .* put it at ", said)
    assert "exporting training/results/everyday-resnet18, which comes with this project: resnet18 with the stem" in said
    assert "3 classes, 58.50% accuracy on its test images" in said
    assert re.search(r"1,000 classes, once there is a connection: \S*export-onnx --depth 18 --weights published", said)
    file = Path("models/everyday-resnet18/1/model.onnx")
    assert read_card(Engine(file.read_bytes(), providers="cpu").metadata).labels == ("thing 0", "thing 1", "thing 2")
    assert export_onnx("check", file).exit_code == 0
    (found,) = find_models(Path("models"))
    assert isinstance(load(found, providers="cpu", max_batch=1), Classifier)


def test_a_run_of_everyday_things_comes_before_others_of_its_depth(results: Path) -> None:
    write_shipped(results, "aaa-resnet18", "resnet18", classes=2)
    assert find_shipped(NetworkSpec(18)).name == "everyday-resnet18"


@pytest.mark.parametrize("words", [("--weights", "published"), ("--pretrained", "torchvision-v1")])
def test_published_weights_that_are_named_are_not_replaced(words: tuple[str, ...]) -> None:
    result = export_onnx("--depth", 18, *words)
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("export-onnx: ")]
    assert re.search(
        r"no connection; .* without internet: \S*export-onnx --checkpoint training/results/everyday-", line
    )
    assert not Path("models").exists()


def test_the_way_out_that_works_without_internet_does() -> None:
    line = export_onnx("--depth", 50, "--weights", "published").stderr.splitlines()[-1]
    way_out = re.search(r"without internet: \S*export-onnx --checkpoint (\S+)", line)
    assert way_out is not None
    assert from_run(Path(way_out[1]), NetworkSpec(), None).name == "everyday-resnet18"


def test_a_depth_that_no_run_has_is_one_line_with_the_ways_out() -> None:
    result = export_onnx("--depth", 50)
    assert result.exit_code == 1
    line = result.stderr.splitlines()[-1]
    assert "no network of depth 50: cannot fetch " in line and "--depth 50 --weights random" in line
    assert "--checkpoint training/results/everyday-resnet18" in line


def test_an_installed_wheel_says_that_a_checkout_has_more(results: Path) -> None:
    shutil.rmtree(results)
    line = export_onnx("--depth", 50).stderr.splitlines()[-1]
    assert "a checkout of this project has trained networks" in line


def test_published_words_may_stand_together_and_exclude_random_ones() -> None:
    both = ("--depth", 50, "--weights", "published", "--pretrained", "timm-a1")
    assert "resnet50_a1_0-14fe96d1.pth: no connection" in export_onnx(*both).stderr
    assert "exclude each other" in export_onnx("--checkpoint", "x", "--weights", "published").stderr


def test_the_newest_finished_run_of_ones_own_is_taken_and_that_is_said(trained: Trained) -> None:
    for name, finished in (("old", "2026-01-01T00:00:00+00:00"), ("new", "2026-02-01T00:00:00+00:00")):
        change_run(copy_run(trained, Path("runs") / name), finished=finished)
    unfinished = copy_run(trained, Path("runs/unfinished"))
    facts = json.loads((unfinished / "run.json").read_text())
    del facts["finished"]
    (unfinished / "run.json").write_text(json.dumps(facts))
    result = export_onnx("--depth", 20)
    assert result.exit_code == 0, result.output
    assert "runs/new is your newest finished run of depth 20; older: runs/old" in result.stderr
    assert "runs/unfinished is unfinished and ignored; --checkpoint runs/unfinished exports it" in result.stderr


def test_a_depth_that_was_never_published_comes_from_a_shipped_run(results: Path) -> None:
    write_shipped(results, "cifar10-resnet8", "resnet8")
    result = export_onnx("--depth", 8)
    assert result.exit_code == 0, result.output
    assert Path("models/cifar10-resnet8/1/model.onnx").is_file()
    assert "published" not in result.stderr
