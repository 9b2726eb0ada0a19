"""`--dry-run` and `--overfit-batch`: what they report, and that nothing is left behind."""

import dataclasses
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.training.conftest import write_images
from tests.training.runs.test_run import RECIPE
from training.cli import main
from training.hardware.devices import choose
from training.hardware.process_group import World
from training.recipes.recipe import Recipe
from training.runs import sanity_checks as trial
from training.runs.options import Options, RunError
from training.runs.progress import Progress
from training.runs.sanity_checks import dry_run, overfit_batch

HARDWARE = choose("fp32", "off", 2)


def try_out(images: Path, out: Path, recipe: Recipe = RECIPE) -> None:
    dry_run(recipe, Options(out=out, data=images, test_data=images), HARDWARE, Progress(), World())


def test_a_dry_run_says_what_worked_and_leaves_nothing(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.iterdir())
    try_out(images, tmp_path / "runs" / "first")
    said = capsys.readouterr().err
    for words in ("data: 114 images in 3 classes", "forward, backward and update of resnet8", "evaluation of 16"):
        assert f"works: {words}" in said
    assert "works: checkpoint written and read back" in said and "works: memory: at most" in said
    assert [path for path in sorted(tmp_path.iterdir()) if path.name != "cache"] == before


def test_a_dry_run_names_no_file_that_it_takes_away_again(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (next(images.iterdir()) / "broken.jpg").write_bytes(b"")
    try_out(images, tmp_path / "run")
    said = capsys.readouterr().err
    assert "1 files skipped" in said and ".dry-run-" not in said and "skipped.csv" not in said


def test_a_dry_run_includes_precise_statistics_and_mixing(images: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, precise_bn_images=100_000, mixup=0.2, cutmix=1.0, choose_best="loss")
    try_out(images, tmp_path / "run", recipe)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_what_the_run_would_refuse(images: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(RunError, match="already has a run"):
        try_out(images, tmp_path / "run")


def test_one_batch_is_learnt_whatever_the_recipe_does_against_it(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = dataclasses.replace(RECIPE, mixup=0.2, label_smoothing=0.1, weight_decay=0.1, batch_size=128)
    overfit_batch(recipe, Options(out=tmp_path / "run", data=images), HARDWARE, Progress(), World())
    assert "the network can learn: its loss on 32 images fell from 1." in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_batch_that_cannot_be_learnt_is_an_error_that_says_where_to_look(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_STEPS_TO_LEARN", 8)
    recipe = dataclasses.replace(RECIPE, learning_rate=1e-12, batch_size=4)
    with pytest.raises(RunError, match=r"does not learn 4 images: .* in 8 steps; look at the labels"):
        overfit_batch(recipe, Options(out=tmp_path / "run", data=images), HARDWARE, Progress(), World())


def test_both_are_switches_of_the_command(tmp_path: Path) -> None:
    data = write_images(tmp_path / "colours", each=10)
    for switch, words in (("--dry-run", "all stages work"), ("--overfit-batch", "the network can learn")):
        arguments = ["run", "--recipe", "paper-resnet20", "--set", "network=resnet8", "--data", str(data), switch]
        result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "run"), "--precision", "fp32"])
        assert result.exit_code == 0 and words in result.stderr
    assert not (tmp_path / "run").exists()
