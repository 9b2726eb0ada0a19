"""`train-resnet loss-surface` and `initial-signals` on invented images."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from tests.support.runs.run_records import record_of
from tests.training.conftest import COLOURS, write_images
from training.cli import main
from training.evaluation import initial_signals
from training.networks.resnet import build
from training.report.initial_signals import InitialSignals
from training.report.surfaces import LossSurface
from training.weights import checkpoint


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(record_of("resnet8", sorted(COLOURS))))
    torch.manual_seed(0)
    checkpoint.save(folder, 7, build("resnet8", num_classes=len(COLOURS)).state_dict(), {})
    return folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", each=4, seed=1, side=32)


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_the_surface_of_a_run_is_written_where_the_report_reads_it(run: Path, images: Path) -> None:
    result = invoke("loss-surface", "--checkpoint", run, "--data", images, "--points", 3, "--images", 6)
    assert result.exit_code == 0, result.output
    found = LossSurface.model_validate_json((run / "loss-surface.json").read_bytes())
    assert (found.network, found.images, found.coordinates) == ("resnet8", 6, [-1.0, 0.0, 1.0])
    assert len({loss for row in found.loss for loss in row}) > 1


def test_other_classes_and_even_numbers_of_points_are_refused_in_one_line(run: Path, images: Path) -> None:
    even = invoke("loss-surface", "--checkpoint", run, "--data", images, "--points", 4)
    assert even.exit_code == 1 and "odd" in even.stderr
    next(path for path in images.iterdir() if path.is_dir()).rename(images / "another")
    other = invoke("loss-surface", "--checkpoint", run, "--data", images, "--points", 3)
    assert other.exit_code == 1 and "classes of the run" in other.stderr.splitlines()[-1]


def test_signals_are_written_for_the_report(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setups = (initial_signals.Setup("plain8"), initial_signals.Setup("plain8", batch_norm=False))
    monkeypatch.setattr(initial_signals, "SETUPS", setups)
    out = tmp_path / "signals.json"
    result = invoke("initial-signals", "--data", images, "--images", 4, "--out", out)
    assert result.exit_code == 0, result.output
    found = InitialSignals.model_validate_json(out.read_bytes())
    assert [network.label for network in found.networks] == ["plain-8", "plain-8 without batch norm"]
    assert len(found.networks[0].response) == 7
