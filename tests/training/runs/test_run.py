"""Whole runs: what they write, and that a killed one goes on as if nothing had happened."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tests.training.conftest import write_images
from training.cli import main
from training.data.dataset import DataError
from training.hardware.devices import choose
from training.recipes.catalog import RECIPES
from training.recipes.recipe import Recipe
from training.runs.options import Options, RunError
from training.runs.progress import Progress
from training.runs.run import run
from training.trainer.loop import Diverged
from training.weights.checkpoint import load_latest

# The smallest network of the family, and two held-out images of each class.
RECIPE = dataclasses.replace(
    RECIPES["modern-resnet20"], network="resnet8", epochs=None, steps=12, batch_size=16, held_out_images=6, ema_every=2
)


def train(images: Path, out: Path, recipe: Recipe = RECIPE, **options: Any) -> dict[str, Any]:
    hardware = choose(precision="fp32", compiled="off", threads=2)
    return run(recipe, Options(out=out, data=images, **options), hardware, Progress())


def test_a_run_says_all_about_itself_and_leaves_a_checkpoint(images: Path, tmp_path: Path) -> None:
    test_data = write_images(tmp_path / "unseen", each=5, seed=1)
    facts = train(images, tmp_path / "run", test_data=test_data)
    assert json.loads((tmp_path / "run" / "run.json").read_text()) == json.loads(json.dumps(facts))
    assert facts["network"] == "resnet8" and facts["labels"] == ["blue", "green", "red"] and facts["steps"] == 12
    assert len(facts["held_out"]) == 6 and facts["dataset"]["images"] == 120
    assert facts["recipe"]["batch_size"] == 16 and facts["seed"] == 0
    assert facts["results"]["test"]["images"] == 15
    assert facts["results"]["calibration"]["images"] == 6 and facts["results"]["calibration"]["temperature"] > 0
    found = load_latest(tmp_path / "run")
    assert found is not None and found.step == 12
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [7, 12]
    assert {"train_loss", "train_error", "held_out_error", "learning_rate"} <= lines[0].keys()
    assert "test_error" not in lines[-1]  # where images are held out, the test set counts once, at the end
    assert facts["results"]["train"]["images"] == 114
    assert list(facts["gradient_norms"]) == ["1", "6", "12"]
    assert facts["gradient_norms"]["1"].keys() == facts["gradient_norms"]["12"].keys() >= {"conv1", "fc"}
    assert facts["layer_responses"].keys() >= {"conv1", "layer3.0.conv2"}


def test_without_held_out_images_the_curve_is_that_of_the_test_set(images: Path, tmp_path: Path) -> None:
    test_data = write_images(tmp_path / "unseen", each=5, seed=1)
    facts = train(images, tmp_path / "run", dataclasses.replace(RECIPE, held_out_images=0), test_data=test_data)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["test_error"] == pytest.approx(facts["results"]["test"]["top1"], abs=1e-3)
    assert facts["held_out"] == [] and "calibration" not in facts["results"]


def test_a_cautious_start_ends_when_the_network_has_begun_to_learn(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.trainer.loop.CAUTIOUS_STEPS", 5)
    recipe = dataclasses.replace(
        RECIPE, schedule="steps", warmup=0.0, learning_rate=0.1, cautious_rate=0.01, cautious_until_error=40.0, steps=35
    )
    train(images, tmp_path / "run", recipe)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["learning_rate"] == pytest.approx(0.1)
    never = dataclasses.replace(recipe, cautious_until_error=0.0, steps=7)
    train(images, tmp_path / "careless", dataclasses.replace(never, cautious_until_error=-1.0))
    line = json.loads((tmp_path / "careless" / "metrics.jsonl").read_text().splitlines()[-1])
    assert line["learning_rate"] == pytest.approx(0.01)


def test_colours_are_learnt(images: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=60, ema_decay=None, held_out_images=12)
    facts = train(images, tmp_path / "run", recipe)
    assert facts["results"]["held_out"]["top1"] < 20


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(images: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(images, tmp_path / name, seed=seed)
    a, b, c = (load_latest(tmp_path / name) for name in "abc")
    assert a and b and c
    assert all(torch.equal(a.weights[name], b.weights[name]) for name in a.weights)
    assert not torch.equal(a.weights["fc.weight"], c.weights["fc.weight"])


COMMAND = """
import dataclasses, sys, time
from pathlib import Path
from training.trainer import loop
from training.hardware.devices import choose
from training.runs.options import Options, RunError
from training.runs.progress import Progress
from training.runs.options import Options
from training.runs.run import run
from tests.training.runs.test_run import RECIPE

class Slow(Progress):
    def show(self, step, *rest):
        print(step, flush=True)
        time.sleep(0.2)

recipe = dataclasses.replace(RECIPE, steps=60)
data, out, how = sys.argv[1:]
options = Options(out=Path(out), data=Path(data), resume=how == "resume", checkpoint_every_minutes=0)
run(recipe, options, choose("fp32", "off", 2), Slow())
"""


def start(images: Path, out: Path, how: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", COMMAND, str(images), str(out), how]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=dict(os.environ), cwd=Path(__file__).parents[3]
    )


@pytest.mark.timeout(240)
def test_a_killed_run_resumes_bit_equal_to_one_that_was_never_interrupted(images: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=60)
    train(images, tmp_path / "whole", recipe)
    for how, last in (("start", 17), ("resume", 38), ("resume", None)):
        with start(images, tmp_path / "killed", how) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if last is not None and int(line) >= last:
                    process.kill()
                    break
    whole, killed = load_latest(tmp_path / "whole"), load_latest(tmp_path / "killed")
    assert whole and killed and whole.step == killed.step == 60
    assert whole.weights.keys() == killed.weights.keys()
    assert all(torch.equal(whole.weights[name], killed.weights[name]) for name in whole.weights)
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (tmp_path / "killed" / "metrics.jsonl").read_text()


def test_sigterm_saves_and_says_how_to_go_on(images: Path, tmp_path: Path) -> None:
    class Terminated(Progress):
        def show(self, step: int, *_: Any) -> None:
            if step >= 7:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0)

    hardware = choose("fp32", "off", 2)
    with pytest.raises(RunError, match=r"stopped at step 7, which is saved; continue with --resume"):
        run(RECIPE, Options(out=tmp_path / "run", data=images), hardware, Terminated())
    found = load_latest(tmp_path / "run")
    assert found is not None and found.step == 7
    assert train(images, tmp_path / "run", resume=True)["results"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 5}, "another seed"),
        ({"recipe": dataclasses.replace(RECIPE, batch_size=8)}, r"another recipe \(batch_size\)"),
    ],
)
def test_resuming_with_other_options_is_refused(
    images: Path, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    train(images, tmp_path / "run")
    with pytest.raises(RunError, match=words):
        train(images, tmp_path / "run", resume=True, **change)


def test_a_run_from_before_a_field_and_with_another_source_is_resumed(images: Path, tmp_path: Path) -> None:
    train(images, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    facts = json.loads(file.read_text())
    facts["recipe"] |= {"source": "hearsay", "expected_error": 1.0}
    for newer in ("choose_best", "expected_on", "precise_bn_images"):
        del facts["recipe"][newer]
    file.write_text(json.dumps(facts))
    assert train(images, tmp_path / "run", resume=True)["results"]


def test_resuming_under_another_resizer_is_refused_with_the_fix(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(images, tmp_path / "run", resizer="pillow")["resizer"] == "pillow"
    with pytest.raises(RunError, match=r"were resized by pillow, not by cykooz-resizer; add --resizer pillow, or give"):
        train(images, tmp_path / "run", resume=True, resizer="cykooz-resizer")
    file = tmp_path / "run" / "run.json"
    facts = json.loads(file.read_text())
    file.write_text(json.dumps(facts | {"resizer": "cykooz-resizer"}))
    monkeypatch.setattr("service.images.simd_resizing.rust", None)
    with pytest.raises(RunError, match="install cykooz-resizer, or give another --out"):
        train(images, tmp_path / "run", resume=True)


def test_a_run_that_records_no_resizer_is_resumed_with_pillow_only(images: Path, tmp_path: Path) -> None:
    train(images, tmp_path / "run", resizer="pillow")
    file = tmp_path / "run" / "run.json"
    facts = json.loads(file.read_text())
    del facts["resizer"]
    file.write_text(json.dumps(facts))
    with pytest.raises(RunError, match="add --resizer pillow"):
        train(images, tmp_path / "run", resume=True, resizer="cykooz-resizer")
    assert train(images, tmp_path / "run", resume=True, resizer="pillow")["resizer"] == "pillow"


def test_resuming_on_changed_images_is_refused(images: Path, tmp_path: Path) -> None:
    train(images, tmp_path / "run")
    (images / "red" / "0.png").write_bytes((images / "red" / "1.png").read_bytes())
    with pytest.raises(RunError, match="the images have changed"):
        train(images, tmp_path / "run", resume=True)


def test_other_hardware_is_said_when_resuming(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(images, tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    file.write_text(file.read_text().replace('"precision": "fp32"', '"precision": "bf16"'))
    train(images, tmp_path / "run", resume=True)
    assert "not bit-equal to an uninterrupted run: precision was bf16, is fp32" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_before_the_good_checkpoint_is_touched(images: Path, tmp_path: Path) -> None:
    train(images, tmp_path / "run")
    recipe = dataclasses.replace(RECIPE, learning_rate=1e30, warmup=0.0)
    with pytest.raises(Diverged, match=r"no longer finite .* lower the learning rate"):
        train(images, tmp_path / "diverged", recipe)
    assert load_latest(tmp_path / "diverged") is None
    assert json.loads((tmp_path / "diverged" / "run.json").read_text())["diverged"] > 0


def test_a_diverged_run_makes_way_for_a_new_one_and_is_kept(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hot = dataclasses.replace(RECIPE, learning_rate=1e30, warmup=0.0)
    for number in (1, 2):
        with pytest.raises(Diverged):
            train(images, tmp_path / "run", hot)
        kept = tmp_path / f"run-diverged-{number - 1}"
        assert kept.is_dir() == (number > 1)
    assert train(images, tmp_path / "run")["results"]
    assert (
        f"the run that diverged in {tmp_path / 'run'} is now {tmp_path / 'run-diverged-2'}" in capsys.readouterr().err
    )
    assert json.loads((tmp_path / "run-diverged-2" / "run.json").read_text())["recipe"]["learning_rate"] == 1e30
    with pytest.raises(RunError, match="already has a run"):
        train(images, tmp_path / "run", hot)


def test_a_longer_run_is_refused_with_the_way_to_train_on(images: Path, tmp_path: Path) -> None:
    train(images, tmp_path / "run")
    longer = dataclasses.replace(RECIPE, steps=20)
    with pytest.raises(
        RunError, match=r"another length \(steps\).* to train on, start a new run .*: --weights THIS_RUN"
    ):
        train(images, tmp_path / "run", longer, resume=True)
    weights = dataclasses.replace(RECIPE, weights=str(tmp_path / "run"))
    assert train(images, tmp_path / "further", weights)["start"]["network"] == "resnet8"


def test_weights_that_are_not_finite_are_never_saved_though_the_loss_before_them_was(
    images: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, epochs=None, steps=1, learning_rate=1e30, weight_decay=1e30, warmup=0.0)
    with pytest.raises(Diverged, match="the weights are no longer finite at step 1"):
        train(images, tmp_path / "diverged", recipe)
    assert load_latest(tmp_path / "diverged") is None


def test_classes_of_the_test_data_that_are_not_trained_on_are_named(images: Path, tmp_path: Path) -> None:
    test_data = write_images(tmp_path / "unseen", each=2)
    (test_data / "red").rename(test_data / "pink")
    with pytest.raises(DataError, match=r"without images to train on: 'pink' \(it lacks 'red'\); put some"):
        train(images, tmp_path / "run", test_data=test_data)


def test_the_command_reports_an_expected_failure_in_one_line(images: Path, tmp_path: Path) -> None:
    train(images, tmp_path / "run")
    for arguments, words in (
        (["--recipe", "nothing", "--out", str(tmp_path / "x")], "no recipe is called 'nothing'; there are"),
        (["--recipe", "modern-resnet20", "--out", str(tmp_path / "run")], "has a run; continue it with --resume"),
        (["--recipe", "modern-resnet20", "--out", str(tmp_path / "x"), "--resume"], "no run in"),
        (["--recipe", "modern-resnet20", "--out", str(tmp_path / "x"), "--steps", "1", "--epochs", "1"], "only one of"),
    ):
        result = CliRunner().invoke(main, ["run", "--data", str(images), *arguments])
        assert result.exit_code == 1
        assert words in result.stderr and "Traceback" not in result.stderr


def test_recipes_are_listed_with_what_to_expect() -> None:
    lines = CliRunner().invoke(main, ["recipes"]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["recipe", *RECIPES]
    assert max(map(len, lines)) <= 100
    line = next(line for line in lines if line.startswith("paper-resnet110 "))
    assert line.split(maxsplit=4)[1:4] == ["64,000", "steps", "6.43%"] and line.endswith("He et al. 2015, table 6")


@pytest.mark.parametrize("content", ["{}", "[1, 2]", "not json"])
def test_a_run_file_that_is_not_ours_is_refused_in_one_line(images: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"not what train-resnet run writes, at (network|content); give another --out"):
        train(images, tmp_path / "run", resume=True)


def test_a_damaged_line_of_the_metrics_is_left_out_when_resuming(images: Path, tmp_path: Path) -> None:
    train(images, tmp_path / "run")
    metrics = tmp_path / "run" / "metrics.jsonl"
    good = metrics.read_text()
    metrics.write_text(good + "damaged\n{}\n" + good[:20])
    train(images, tmp_path / "run", resume=True)
    assert metrics.read_text() == good
