"""The runs that come with the project, as they are found and described."""

from pathlib import Path

import pytest

from tests.support.runs.shipped import write_shipped
from training.runs import shipped
from training.runs.shipped import SMALL, is_checkout, is_shipped, shipped_runs, shown


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shipped, "RESULTS", tmp_path / "training" / "results")
    return tmp_path / "training" / "results"


def test_runs_with_weights_are_found_those_of_everyday_things_first(results: Path) -> None:
    for name, network in (("cifar10-resnet8", "resnet8"), ("everyday-resnet18", "resnet18")):
        write_shipped(results, name, network)
    (results / "paper").mkdir()
    (results / "paper" / "run.json").write_text("{}")
    (results / "broken").mkdir()
    (results / "broken" / "weights.safetensors").touch()
    assert [run.name for run in shipped_runs()] == ["everyday-resnet18", "cifar10-resnet8"]


def test_a_run_says_what_it_knows(results: Path) -> None:
    write_shipped(results, "everyday-resnet18", "resnet18", side=64, classes=7)
    (run,) = shipped_runs()
    assert str(run) == (
        "resnet18 with the stem 3x3 at 64 x 64 pixels, 7 classes, 58.50% accuracy on its test images, "
        "as the run recorded"
    )


def test_an_installation_without_the_project_around_it_is_no_checkout(results: Path) -> None:
    assert not is_checkout()
    (results.parents[1] / "pyproject.toml").touch()
    assert is_checkout()


def test_the_small_run_is_in_every_installation() -> None:
    assert SMALL in {run.name for run in shipped_runs()}
    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert f"results/{SMALL}/weights.safetensors" in pyproject
    assert is_shipped(shipped.RESULTS / SMALL) and not is_shipped(Path("runs") / SMALL)


def test_a_path_is_shown_as_it_is_typed_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "runs" / "mine") == Path("runs/mine")
    assert shown(Path("/elsewhere/mine")) == Path("/elsewhere/mine")
