"""Signals at initialization and loss surfaces in the report."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.support.runs.run_folders import facts_of, write_run
from training.cli import main
from training.report import findings
from training.report.initial_signals import InitialSignals, read_signals
from training.report.maps import gradients, initial_signals, loss_surfaces
from training.report.runs import ReportError, read_runs
from training.report.surfaces import LossSurface, read_surfaces

SIGNALS = {
    "images": 8,
    "dataset": "cifar10",
    "seeds": [0],
    "networks": [
        {"label": label, "network": "plain20", "batch_norm": norm, "initialization": "He"}
        | {"response": [1.0, 1.0], "backward": backward, "gradient_over_weight": [1.0, 2.0]}
        for label, norm, backward in (("with", True, [4.0, 2.0]), ("without", False, [1e-30, 1.0]))
    ],
}
SURFACE = {
    "network": "resnet20",
    "dataset": "cifar10",
    "images": 8,
    "seed": 0,
    "coordinates": [-1.0, 0.0, 1.0],
    "loss": [[9.0, 1.4, 9.0], [1.4, 0.5, 1.4], [9.0, 2.0, 90.0]],
}


def test_signals_are_drawn_for_each_setup_with_the_change_from_the_last_layer_to_the_first() -> None:
    signals = InitialSignals.model_validate(SIGNALS)
    figure = initial_signals(signals, findings.initial_signals(signals))
    assert "with × 2, without × 1e-30" in figure.finding
    assert len(figure.panels) == 2 and all("without</text>" in panel.svg for panel in figure.panels)
    assert ("without", "1", "1", "1e-30", "1") in figure.data.rows
    assert signals.control is not None and signals.control.label == "without"


def test_a_surface_is_drawn_with_the_share_of_low_losses() -> None:
    surfaces = {"a run": LossSurface.model_validate(SURFACE)}
    figure = loss_surfaces(surfaces, findings.loss_surfaces(surfaces))
    assert "ResNet-20 44%" in figure.finding  # 4 of 9 points are at most 1.5
    assert "ResNet-20 (a run)</text>" in figure.panels[0].svg and len(figure.data.rows) == 9
    assert ("a run", "1", "-1", "9") in figure.data.rows


def test_gradients_are_drawn_by_layer_and_step_on_one_scale() -> None:
    found = {"plain20": {1: [300.0, 2.0, 1.0], 8: [1.0, 1.0, 1.0]}, "resnet20": {1: [1.0, 1.0, 1.0]}}
    figure = gradients(found, findings.vanishing(found))
    assert len(figure.panels) == 2 and len(figure.data.rows) == 9
    assert "step 8</text>" in figure.panels[0].svg
    assert "the opposite of vanishing, in plain-20 at step 1." in figure.finding


def test_records_are_read_beside_and_in_the_run_folders(tmp_path: Path) -> None:
    write_run(tmp_path / "run", facts_of("resnet20", 1.0, 2.0))
    runs = read_runs(tmp_path)[0]
    assert read_signals(tmp_path) is None and read_surfaces(tmp_path, runs) == {}
    (tmp_path / "initial-signals.json").write_text(json.dumps(SIGNALS))
    (tmp_path / "run" / "loss-surface.json").write_text(json.dumps(SURFACE))
    signals, surfaces = read_signals(tmp_path), read_surfaces(tmp_path, runs)
    assert signals is not None and len(signals.networks) == 2
    assert surfaces["run"].at_the_weights == 0.5


def test_damaged_records_are_refused_with_their_place(tmp_path: Path) -> None:
    write_run(tmp_path / "run", facts_of("resnet20", 1.0, 2.0))
    (tmp_path / "initial-signals.json").write_text("{}")
    with pytest.raises(ReportError, match="has no usable images"):
        read_signals(tmp_path)
    file = tmp_path / "run" / "loss-surface.json"
    for content, fault in (("{}", "no usable network"), (json.dumps(SURFACE | {"loss": [[1.0]]}), "no square")):
        file.write_text(content)
        with pytest.raises(ReportError, match=fault):
            read_surfaces(tmp_path, read_runs(tmp_path)[0])


def test_the_command_line_refuses_a_run_without_weights(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", facts_of("resnet20", 1.0, 2.0))
    result = CliRunner().invoke(main, ["loss-surface", "--checkpoint", str(run), "--data", str(tmp_path)])
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
