"""Whole runs on a folder of somebody's own images: nothing to set, everything said, and resumable."""

import csv
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from tests.support.image_files.messy_images import BROKEN, CLASSES, STRAYS, write_messy_images
from tests.support.runs.shipped import write_shipped
from tests.training.conftest import write_images
from tests.training.weights.test_conversion import as_torchvision, settled
from training.cli import main
from training.runs import shipped
from training.weights.checkpoint import load_latest


@pytest.fixture(autouse=True)
def unreachable_publisher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESNET_WEIGHTS_MIRROR", "http://127.0.0.1:9")  # the port `discard`, where nobody listens


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of shipped runs: the small CIFAR-10 network alone, as in a wheel."""
    folder = tmp_path / "results"
    shutil.copytree(shipped.RESULTS / shipped.SMALL, folder / shipped.SMALL)
    monkeypatch.setattr(shipped, "RESULTS", folder)
    return folder


@pytest.fixture
def messy(tmp_path: Path) -> Path:
    return write_messy_images(tmp_path / "pictures")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file as of torchvision, of the smallest network, for seven classes."""
    torch.save(as_torchvision(settled("resnet8")), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


def train(data: Path, out: Path, *options: str | Path) -> Result:
    command = ["run", "--recipe", "finetune", "--data", data, "--out", out, "--precision", "fp32", "--compile", "off"]
    return CliRunner().invoke(main, [str(word) for word in (*command, *options)])


PACKED = ("--set", "crop=pad")  # no processes that decode each image anew


def facts_of(run: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((run / "run.json").read_text())
    return facts


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as content:
        return list(csv.DictReader(content))


def said_lines(result: Result) -> Iterator[str]:
    assert result.exit_code == 0, result.output
    yield from result.output.splitlines()


def test_a_messy_folder_trains_with_no_option_and_says_what_it_skipped(messy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    lines = "\n".join(said_lines(train(messy, run)))
    assert "no published weights" in lines and "resnet20 at 32 x 32 pixels" in lines
    assert "a new one for 3 classes starts untrained" in lines
    assert f"files that cannot be used: {len(BROKEN | STRAYS)}; {run / 'skipped.csv'} lists them with reasons" in lines
    assert "images to train on + held out: blaue Flächen 11 + 3, grün 7 + 2, red 5 + 1" in lines
    assert {row["file"] for row in rows_of(run / "skipped.csv")} == BROKEN | STRAYS
    assert all(row["reason"] for row in rows_of(run / "skipped.csv"))
    split = rows_of(run / "split.csv")
    assert {row["label"] for row in split if row["part"] == "val"} == set(CLASSES)
    assert len(split) == 29 and all((messy / row["file"]).is_file() for row in split)
    facts = facts_of(run)
    assert facts["balance"]["classes"]["red"] == {"train": 5, "held_out": 1}
    assert facts["results"]["held_out"]["images"] == 6
    assert facts["results"]["held_out"]["top1"] == 0  # three colours are told apart


def test_a_run_starts_from_a_shipped_one_of_everyday_things_and_goes_on_without_it(
    results: Path, tmp_path: Path
) -> None:
    everyday = write_shipped(results, "everyday-resnet18", "resnet18", side=16)
    data, run = write_images(tmp_path / "pictures", each=8), tmp_path / "run"
    begun = train(data, run, *PACKED, "--steps", "2", "--checkpoint-every", "0")
    assert "Starting from everyday-resnet18" in "\n".join(said_lines(begun))
    facts = facts_of(run)
    assert (facts["network"], facts["stem"], facts["recipe"]["image_size"]) == ("resnet18", "3x3", 16)
    assert facts["start"]["weights"] == str(everyday / "weights.safetensors")
    assert facts["start"]["instead_of"].startswith("published weights: cannot fetch http://127.0.0.1:9/resnet50-")
    shutil.rmtree(everyday)
    shutil.rmtree(max((run / "checkpoints").glob("*[0-9]"), key=lambda path: int(path.name)))
    resumed = "\n".join(said_lines(train(data, run, *PACKED, "--steps", "2", "--resume")))
    assert "continuing from step" in resumed and "published" not in resumed
    assert facts_of(run)["start"] == facts["start"]


@pytest.mark.parametrize("words", [("--set", "weights=published"), ("--weights", "published")])
def test_published_weights_that_the_user_has_set_are_not_replaced(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = train(write_images(tmp_path / "pictures", each=8), tmp_path / "run", *words)
    assert result.exit_code == 1
    assert "no weights to start resnet50 from: cannot fetch" in result.output
    assert not (tmp_path / "run").exists()


def test_a_run_that_goes_on_is_bit_equal_and_needs_no_weights_file(weights: Path, tmp_path: Path) -> None:
    data = write_images(tmp_path / "pictures", each=8)
    options = ("--steps", "8", "--set", "freeze=stem", "--set", "layer_decay=0.5", "--set", "class_weights=balanced")
    assert train(data, tmp_path / "whole", "--weights", weights, *options).exit_code == 0
    begun = train(data, tmp_path / "cut", "--weights", weights, *options, "--checkpoint-every", "0")
    assert begun.exit_code == 0
    newest = max((tmp_path / "cut" / "checkpoints").glob("*[0-9]"), key=lambda path: int(path.name))
    shutil.rmtree(newest)  # as if it had been killed before the last one was whole
    weights.unlink()
    resumed = train(data, tmp_path / "cut", *options, "--resume")
    assert "continuing from step" in "\n".join(said_lines(resumed))
    whole, cut = load_latest(tmp_path / "whole"), load_latest(tmp_path / "cut")
    assert whole and cut and whole.step == cut.step == 8
    assert all(torch.equal(whole.weights[name], cut.weights[name]) for name in whole.weights)
    assert facts_of(tmp_path / "cut")["start"] == facts_of(tmp_path / "whole")["start"]


def test_the_weights_are_in_the_first_checkpoint_before_run_json_says_that_there_is_a_run(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training.trainer.loop.Training.train", killed)
    data = write_images(tmp_path / "pictures", each=8)
    train(data, tmp_path / "run", "--weights", weights, *PACKED)
    found = load_latest(tmp_path / "run")
    assert found is not None and found.step == 0
    assert torch.equal(found.weights["conv1.weight"], settled("resnet8").conv1.weight)
    weights.unlink()
    monkeypatch.undo()
    assert train(data, tmp_path / "run", "--resume", *PACKED).exit_code == 0


def test_parts_in_folders_of_the_usual_names_are_used_as_they_are(weights: Path, tmp_path: Path) -> None:
    for name, each in (("train", 6), ("val", 2), ("test", 3)):
        write_images(tmp_path / "pictures" / name, each=each, seed=each)
    shutil.rmtree(tmp_path / "pictures" / "val" / "green")
    result = train(tmp_path / "pictures", tmp_path / "run", "--weights", weights, "--steps", "4", *PACKED)
    lines = "\n".join(said_lines(result))
    assert "is split: train on train, validate on val, test on test" in lines
    assert "no image of 'green' is held out" in lines
    facts = facts_of(tmp_path / "run")
    assert [facts["results"][part]["images"] for part in ("train", "held_out", "test")] == [18, 4, 9]
    assert facts["held_out"] == [] and facts["validation_dataset"]["images"] == 4
    assert rows_of(tmp_path / "run" / "split.csv")[-1] == {"file": "test/red/2.png", "label": "red", "part": "test"}


def test_a_wrong_file_of_weights_is_one_line_that_names_what_does_not_fit(weights: Path, tmp_path: Path) -> None:
    data = write_images(tmp_path / "pictures", each=2)
    result = train(data, tmp_path / "run", "--weights", weights, "--set", "network=resnet14")
    assert (
        result.exit_code == 1 and "not the weights of resnet14: the file lacks layer1.1.conv1.weight" in result.output
    )
    result = train(data, tmp_path / "run", "--weights", tmp_path / "none.pth")
    assert result.exit_code == 1 and "there is no file" in result.output
    result = train(data, tmp_path / "run", "--weights", weights, "--set", "freeze=layer4")
    assert result.exit_code == 1 and "resnet8 has no layer4 to freeze" in result.output
    assert not (tmp_path / "run").exists()


def test_most_of_a_folder_has_to_be_images(weights: Path, tmp_path: Path) -> None:
    data = write_images(tmp_path / "pictures", each=2)
    for index in range(7):
        (data / "red" / f"broken{index}.png").touch()
    result = train(data, tmp_path / "run", "--weights", weights)
    assert result.exit_code == 1 and "--max-skipped 0.5" in result.output
