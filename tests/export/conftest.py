"""A tiny network, exported once, and a real (very short) training run."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from export.graph.to_onnx import deployable, serialise, to_onnx
from export.sources.network_spec import NetworkSpec
from export.sources.trained import Source, from_random_weights
from tests.training.conftest import write_images
from training.cli import main as train
from training.runs import shipped
from training.weights.published import MIRROR

TEMPERATURE = 1.5


@pytest.fixture(autouse=True)
def private_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test works offline in a folder of its own, without runs, models or shipped runs."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv(MIRROR, "http://127.0.0.1:1")  # nobody listens there: no test reaches the world
    monkeypatch.setattr(shipped, "RESULTS", tmp_path / "nothing" / "shipped")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


@dataclass(frozen=True, slots=True)
class Converted:
    """A source and its graph, without a card."""

    source: Source
    graph: onnx.ModelProto

    @property
    def content(self) -> bytes:
        return serialise(self.graph)


@pytest.fixture(scope="session")
def tiny() -> Converted:
    """ResNet-8, the smallest of the family, with six classes and random weights."""
    source = from_random_weights(NetworkSpec(depth=8), [f"kind {index}" for index in range(6)], seed=1)
    return Converted(source, to_onnx(deployable(source.network), source.preprocessing, TEMPERATURE))


@dataclass(frozen=True, slots=True)
class Trained:
    """A finished run, and the images it was trained and tested on."""

    run: Path
    train_set: Path
    test_set: Path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Two steps of a ResNet-20 on three classes of coloured noise, with twelve images held out."""
    folder = tmp_path_factory.mktemp("trained")
    result = Trained(
        folder / "runs" / "colours",
        write_images(folder / "colours" / "train", each=40),
        write_images(folder / "colours" / "test", each=5, seed=1),
    )
    options = ["--recipe", "modern-resnet20", "--steps", "2", "--precision", "fp32", "--compile", "off"]
    options += ["--data", str(result.train_set), "--test-data", str(result.test_set), "--out", str(result.run)]
    outcome = CliRunner().invoke(train, ["run", *options], env={"XDG_CACHE_HOME": str(folder / "cache")})
    assert outcome.exit_code == 0, outcome.output
    return result


def copy_run(trained: Trained, to: Path) -> Path:
    """Copy a run, as if it had been trained there."""
    return Path(shutil.copytree(trained.run, to))
