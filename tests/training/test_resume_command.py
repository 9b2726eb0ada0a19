"""`train-resnet run --resume RUN`, which needs nothing but the folder of the run."""

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.training.conftest import write_images
from training.cli import main
from training.weights.checkpoint import load_latest

OPTIONS = [
    "--recipe",
    "modern-resnet20",
    "--set",
    "network=resnet8",
    "--set",
    "batch_size=16",
    "--steps",
    "9",
    "--seed",
    "3",
    "--threads",
    "2",
]


def train_resnet(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["run", *map(str, arguments)])


def interrupted(run: Path) -> None:
    """Leave a run as one that was killed before its evaluation."""
    facts = json.loads((run / "run.json").read_text())
    for name in ("results", "layer_responses", "finished"):
        del facts[name]
    (run / "run.json").write_text(json.dumps(facts))


def test_a_run_is_resumed_from_its_folder_with_its_own_options(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tested = write_images(tmp_path / "unseen", each=3, seed=1)
    monkeypatch.chdir(tmp_path)
    where = ("--data", images.name, "--test-data", tested.name, "--out", "run")
    assert train_resnet(*OPTIONS, *where).exit_code == 0
    before = json.loads(Path("run/run.json").read_text())
    interrupted(Path("run"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # the data is found from the folder of the run
    result = train_resnet("--resume", os.path.relpath(tmp_path / "run"))
    assert result.exit_code == 0 and "continuing from step 9" in result.stderr, result.output
    after = json.loads((tmp_path / "run" / "run.json").read_text())
    assert after["results"] == before["results"] and after["results"]["test"]["images"] == 9
    assert after["seed"] == 3 and after["recipe"] == before["recipe"]
    assert train_resnet("--resume", tmp_path / "run").exit_code == 0  # its record still has all options


def test_typed_options_take_the_place_of_recorded_ones(images: Path, tmp_path: Path) -> None:
    assert train_resnet(*OPTIONS, "--data", images, "--out", tmp_path / "run").exit_code == 0
    result = train_resnet("--resume", tmp_path / "run", "--epochs", "5")
    assert result.exit_code == 1 and "another length (epochs, steps)" in result.stderr
    moved = images.rename(tmp_path / "moved")
    assert "there is no folder or tar file" in train_resnet("--resume", tmp_path / "run").stderr
    assert train_resnet("--resume", tmp_path / "run", "--data", moved).exit_code == 0
    found = load_latest(tmp_path / "run")
    assert found is not None and found.step == 9


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--resume", "nothing"], "there is no nothing/run.json; give --resume the folder of a run"),
        (["nothing"], "there is no nothing/run.json"),
        ([], "--recipe and --data are needed; or continue a run with --resume RUN"),
    ],
)
def test_a_run_that_cannot_be_continued_is_named(arguments: list[str], fault: str) -> None:
    result = train_resnet(*arguments)
    assert result.exit_code == 1 and fault in result.stderr and "Traceback" not in result.output


def test_a_run_without_recorded_options_asks_for_them(images: Path, tmp_path: Path) -> None:
    assert train_resnet(*OPTIONS, "--data", images, "--out", tmp_path / "run").exit_code == 0
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"command": None}))
    assert "is of an earlier version" in train_resnet("--resume", tmp_path / "run").stderr
    old_way = train_resnet(*OPTIONS, "--data", images, "--out", tmp_path / "run", "--resume")
    assert old_way.exit_code == 0
    assert "only for continuing it; add --resume" in train_resnet(tmp_path / "run").stderr
