"""`export-onnx` as people use it: defaults that work, one line where something is missing, never a torn file."""

import dataclasses
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

import export.export
import export.verification.evaluation
from export.cli import main
from export.errors import ExportError
from export.sources.network_spec import NetworkSpec
from export.sources.random_weights import random_network
from export.sources.sample_images import samples_by_every_resizer
from export.sources.trained import from_random_weights
from service.engine.engine import Engine, EngineError
from service.images.preprocessing import usual_resizer
from service.model_files.card import golden_input, read_card
from tests.export.conftest import Trained, copy_run
from tests.support.servers.file_server import serving
from training.networks.resnet import architecture
from training.weights import published as published_weights
from training.weights.checkpoint import sha256_of
from training.weights.published import MIRROR, find_published

ROOT = Path(__file__).parents[2]


def export_onnx(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refusal(*arguments: object) -> str:
    """Return the one line of an expected failure, and check that there is nothing else to it."""
    result = export_onnx(*arguments)
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("export-onnx: ")]
    assert line == result.stderr.splitlines()[-1]
    return line


def test_a_run_becomes_a_measured_file_under_the_next_version(trained: Trained) -> None:
    copy_run(trained, Path("runs/mine"))
    result = export_onnx("--depth", 20)
    assert result.exit_code == 0, result.output
    content = Path("models/colours-resnet20/1/model.onnx").read_bytes()
    engine = Engine(content, providers="cpu")
    card = read_card(engine.metadata)
    assert (card.network, card.depth, card.dataset, card.precision) == ("resnet20", 20, "colours", "fp32")
    assert card.labels == ("blue", "green", "red")
    assert (card.variant.shortcut, card.variant.stride_in) == ("A", None)
    assert card.accuracy is not None and card.accuracy.images == 15
    assert card.accuracy.provider == "CPUExecutionProvider"
    assert card.calibration is not None and card.calibration.images == 12
    samples = samples_by_every_resizer(card.preprocessing)
    assert card.parity.images == card.parity.agreeing_images == 15 + len(samples)
    assert card.preprocessing.resizer == usual_resizer()
    assert card.provenance.recipe == "modern-resnet20"
    assert card.provenance.versions["opset"] == "20"
    assert {"python", "torch", "onnx", "onnxruntime", "ir"} <= card.provenance.versions.keys()
    (golden,) = engine.run(golden_input(32, 32), outputs=("probabilities",))
    np.testing.assert_allclose(golden[0], card.golden.probabilities, rtol=0, atol=1e-4)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    for word in ("models/colours-resnet20/1/model.onnx", "parity", "accuracy", "calibration: temperature"):
        assert word in result.stdout


def test_random_weights_need_nothing_and_the_same_export_gives_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    output = tmp_path / "new" / "folder" / "tiny.onnx"
    arguments = ("--depth", 8, "--weights", "random", "--seed", 3)
    assert export_onnx(*arguments, "--output", output).exit_code == 0
    result = export_onnx(*arguments)
    assert "accuracy: not measured" in result.stdout
    written = Path("models/random-resnet8/1/model.onnx").read_bytes()
    assert output.read_bytes() == written
    card = read_card(Engine(written, providers="cpu").metadata)
    assert card.accuracy is card.calibration is card.dataset is card.provenance.checkpoint_sha256 is None
    assert (card.provenance.seed, card.provenance.created) == (3, "2023-11-14T22:13:20+00:00")
    assert len(card.labels) == 10
    assert card.parity.images == len(samples_by_every_resizer(card.preprocessing))


def test_random_weights_take_their_classes_from_labels_or_from_data(trained: Trained, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    arguments = ("--depth", 8, "--variant", "plain", "--weights", "random")
    assert export_onnx(*arguments, "--labels", tmp_path / "labels.txt", "--output", "labels.onnx").exit_code == 0
    assert export_onnx(*arguments, "--data", trained.test_set, "--output", "data.onnx").exit_code == 0
    by_labels, by_data = (
        read_card(Engine(Path(name).read_bytes(), providers="cpu").metadata) for name in ("labels.onnx", "data.onnx")
    )
    assert (by_labels.network, by_labels.labels) == ("plain8", ("cat", "dog"))
    assert by_data.labels == ("blue", "green", "red")
    assert by_data.accuracy is not None and by_data.accuracy.images == 15


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--depth", 21), "no network has 21 layers"),
        ((), "no finished run fits any depth"),
        (
            ("--depth", 50),
            r"no network of depth 50: .*resnet50-11ad3fa6\.pth: no connection; .*--weights a file.*weights random",
        ),
        (("--depth", 50, "--variant", "v1"), r"no finished run fits depth 50, variant v1: .*train-resnet run"),
        (
            ("--depth", 50, "--pretrained", "timm-a1"),
            r"resnet50_a1_0-14fe96d1\.pth: no connection; .* put it at .*/cache/",
        ),
        (("--depth", 50, "--pretrained", "tv"), r"as 'tv'; choose one of torchvision-v2, torchvision-v1, timm-a1"),
        (("--pretrained", "torchvision-v1"), "which network.*--depth"),
        (
            ("--depth", 50, "--pretrained", "timm-a1", "--weights", "random"),
            "--pretrained and --weights random exclude",
        ),
        (("--checkpoint", "absent", "--weights", "absent.pth"), "exclude each other"),
        (("--weights", "absent.pth"), r"there is no file absent\.pth"),
        (("--depth", 21, "--weights", "random"), "no network has 21 layers"),
        (("--weights", "random"), "which network.*--depth"),
        (("--depth", 20, "--variant", "D"), "no variant is called 'D'"),
        (("--depth", 20, "--variant", "v1", "--weights", "random"), "no bottlenecks"),
        (("--checkpoint", "absent"), "there is no absent"),
        (("--checkpoint", "absent", "--weights", "random"), "exclude each other"),
        (("--depth", 20, "--seed", 1), "--seed is for random weights"),
        (("--depth", 8, "--weights", "random", "--output", "."), "is a folder"),
        (("--depth", 8, "--weights", "random", "--labels", "absent.txt"), "cannot be read"),
        (("--depth", 8, "--weights", "random", "--data", "absent"), "there is no folder or tar file"),
        (
            ("--depth", 50, "--precision", "int8"),
            "no finished run fits depth 50, .*give a few hundred with --calibration",
        ),
        (("--depth", 50, "--pretrained", "timm-a1", "--precision", "int8"), "give a few hundred with --calibration"),
        (("--weights", "absent.pth", "--precision", "int8"), "give a few hundred with --calibration"),
        (
            ("--depth", 50, "--precision", "int8", "--calibration", "absent"),
            "no folder or tar file absent; give --calibration",
        ),
        (("--depth", 8, "--weights", "random", "--max-accuracy-loss", 1), "is for --precision fp16 and int8"),
    ],
)
def test_an_expected_failure_is_one_line_that_names_the_next_step(arguments: tuple[object, ...], expected: str) -> None:
    assert re.search(expected, refusal(*arguments))
    assert not Path("models").exists()


def test_a_contradiction_with_the_checkpoint_is_an_error(trained: Trained) -> None:
    line = refusal("--checkpoint", trained.run, "--depth", 56)
    assert "--depth is 56, the run's network has 20 layers" in line


def test_weights_of_another_program_become_a_file_that_says_what_was_assumed(tmp_path: Path) -> None:
    weights = random_network(architecture("resnet8", "B"), 3, seed=2).state_dict()
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in weights.items()}}, tmp_path / "mine.pth")
    (tmp_path / "labels.txt").write_text("red\ngreen\nblue\n")
    result = export_onnx("--weights", tmp_path / "mine.pth", "--labels", tmp_path / "labels.txt")
    assert result.exit_code == 0, result.output
    assert "assumed are 32 pixels" in result.stderr
    card = read_card(Engine(Path("models/mine-resnet8/1/model.onnx").read_bytes(), providers="cpu").metadata)
    assert (card.network, card.variant.shortcut, card.labels) == ("resnet8", "B", ("red", "green", "blue"))
    assert card.published is card.synsets is card.accuracy is card.dataset is None
    assert card.provenance.checkpoint_sha256 == sha256_of(tmp_path / "mine.pth")
    assert Path("models/mine-resnet8/config.pbtxt").read_text().count('name: "mine-resnet8"') == 1


@pytest.mark.long
def test_published_weights_become_a_file_whose_accuracy_is_a_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = from_random_weights(NetworkSpec(depth=18), None, seed=1)
    torch.save(source.network.state_dict(), tmp_path / "weights.pth")
    digest = sha256_of(tmp_path / "weights.pth")
    row = dataclasses.replace(
        find_published(18), url=f"https://publisher.invalid/w-{digest[:8]}.pth", digest=digest[:8]
    )
    monkeypatch.setattr(published_weights, "PUBLISHED", (row,))
    with serving((tmp_path / "weights.pth").read_bytes()) as server:
        server.cut_after = [10_000_000]
        monkeypatch.setenv(MIRROR, server.url)
        result = export_onnx("--depth", 18)
    assert result.exit_code == 0, result.output
    assert "published: 69.76% top-1, 89.08% top-5" in result.stdout and "accuracy: not measured" in result.stdout
    card = read_card(Engine(Path("models/imagenet-resnet18/1/model.onnx").read_bytes(), providers="cpu").metadata)
    assert card.accuracy is None and card.published is not None
    assert (card.published.name, card.published.top1, card.published.url) == ("torchvision-v1", row.top1, row.url)
    assert card.provenance.checkpoint_sha256 == digest
    assert card.synsets is not None and (card.labels[1], card.synsets[1]) == ("goldfish", "n01443537")
    assert "dims: [ 224, 224, 3 ]" in Path("models/imagenet-resnet18/config.pbtxt").read_text()


@pytest.mark.parametrize("step", ["to_onnx", "check_parity", "with_card"])
def test_where_a_check_fails_nothing_is_written(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise ExportError("this check failed; nothing was written")

    monkeypatch.setattr(export.export, step, fail)
    assert "this check failed" in refusal("--depth", 8, "--weights", "random")
    assert not Path("models").exists()


def test_a_wrong_date_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert "SOURCE_DATE_EPOCH is 'yesterday'" in refusal("--depth", 8, "--weights", "random")


@pytest.mark.parametrize("moment", ["converting", "comparing"])
def test_a_killed_export_leaves_the_old_file_unchanged(tmp_path: Path, moment: str) -> None:
    output = tmp_path / "model.onnx"
    output.write_bytes(b"old")
    arguments = ["--depth", "20", "--weights", "random", "--output", str(output)]
    command = [sys.executable, "-c", "from export.cli import main; main()", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        assert any(line.startswith(moment) for line in process.stderr)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert output.read_bytes() == b"old"
    assert not Path("models").exists()


def test_a_missing_package_is_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "export.export", None)
    assert "is not installed; install this project with the extras export and cpu: make install" in refusal(
        "--depth", 20
    )


def test_a_session_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise EngineError("two runtimes are installed")

    monkeypatch.setattr(export.verification.evaluation, "Engine", refuse)
    assert "two runtimes are installed" in refusal("--depth", 8, "--weights", "random")


def test_help_says_what_the_defaults_are() -> None:
    result = export_onnx("--help")
    assert result.exit_code == 0
    assert "--checkpoint" in result.stdout and "--weights" in result.stdout
