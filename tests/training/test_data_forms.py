"""Published archives and tables as `--data` of a run, and of the evaluation of the run's network."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.data_layouts import cifar10_files, csv_of, images, tar_of, write_files
from training.cli import main


def run(data: Path, out: Path, *arguments: str) -> str:
    options = ["--set", "network=resnet8", "--steps", "2", "--set", "batch_size=8", "--set", "held_out_images=0"]
    command = ["run", "--recipe", "modern-resnet20", "--data", str(data), "--out", str(out), *options, *arguments]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_run_on_the_original_cifar_10_tests_on_its_test_batch(tmp_path: Path) -> None:
    data = tar_of(tmp_path / "cifar-10-python.tar.gz", cifar10_files(), "w:gz")
    run(data, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["dataset"]["images"] == 30 and facts["results"]["test"]["images"] == 6
    result = CliRunner().invoke(main, ["evaluate", "--checkpoint", str(tmp_path / "run"), "--data", str(data)])
    assert result.exit_code == 0, result.output
    evaluation = json.loads((tmp_path / "run" / "evaluation" / "centre" / "evaluation.json").read_text())
    assert evaluation["images"] == 6 and not evaluation["trained_on_these_pictures"]
    assert evaluation["top1_error"] == pytest.approx(facts["results"]["test"]["top1"])


def test_a_run_on_a_table_may_cut_random_crops(tmp_path: Path) -> None:
    write_files(tmp_path, [(name, content) for name, _, content in images(each=8)])
    table = tmp_path / "animals.csv"
    table.write_bytes(csv_of({"file_name": name, "label": label} for name, label, _ in images(each=8)))
    assert "decoded for each step anew" in run(table, tmp_path / "run", "--set", "crop=random_resized")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["labels"] == ["cat", "dog", "owl"]
