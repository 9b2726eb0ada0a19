"""Precision and repeatability, chosen once for a run."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.test_run import RECIPE
from training.checkpoint import load_latest
from training.hardware import Hardware, choose
from training.prepare import Options, RunError, _hardware_for
from training.progress import Progress
from training.run import run


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def test_float16_is_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="fp16 needs a GPU; on a CPU use bf16 or fp32"):
        choose("fp16")
    with pytest.raises(ValueError, match="--precision is auto, fp32, bf16 or fp16"):
        choose("int8")


def test_deterministic_is_a_switch_that_is_recorded(pictures: Path, tmp_path: Path) -> None:
    hardware = choose("fp32", "off", 2, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    facts = run(
        dataclasses.replace(RECIPE, steps=3), Options(out=tmp_path / "run", data=pictures), hardware, Progress()
    )
    assert facts["hardware"]["deterministic"] is True
    choose("fp32", "off", 2)
    assert not torch.are_deterministic_algorithms_enabled()


def float16() -> Hardware:
    """Return float16 on this CPU, slowly: what choosing refuses, but it computes as a GPU does."""
    return dataclasses.replace(choose("fp32", "off", 2), precision="fp16")


def test_float16_trains_with_a_scaled_loss_and_true_gradients(pictures: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=4, clip_norm=1.0)
    facts = run(recipe, Options(out=tmp_path / "half", data=pictures), float16(), Progress())
    full = run(recipe, Options(out=tmp_path / "full", data=pictures), choose("fp32", "off", 2), Progress())
    saved = load_latest(tmp_path / "half")
    assert saved is not None and saved.state["scaler"]["scale"] == 2.0**12
    for name, norm in full["gradient_norms"]["1"].items():  # unscaled before they are clipped
        assert facts["gradient_norms"]["1"][name] == pytest.approx(norm, rel=0.05)


def test_a_gradient_that_overflows_in_float16_leaves_the_weights_and_halves_the_scale(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.loop._FIRST_LOSS_SCALE", 2.0**40)
    recipe = dataclasses.replace(RECIPE, steps=3, ema_decay=None)
    run(recipe, Options(out=tmp_path / "run", data=pictures), float16(), Progress())
    run(dataclasses.replace(recipe, steps=1), Options(out=tmp_path / "one", data=pictures), float16(), Progress())
    saved, one = load_latest(tmp_path / "run"), load_latest(tmp_path / "one")
    assert saved and one and saved.state["scaler"]["scale"] == 2.0**37
    assert torch.equal(saved.weights["fc.weight"], one.weights["fc.weight"])
    assert json.loads((tmp_path / "run" / "run.json").read_text())["gradient_norms"] == {}  # no number is infinite


def test_statistics_over_several_processes_are_refused_on_a_cpu(pictures: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, sync_bn=True)
    with pytest.raises(RunError, match="sync_bn needs GPUs, one for each process of torchrun; leave it out"):
        run(recipe, Options(out=tmp_path / "run", data=pictures), choose("fp32", "off", 1), Progress())


def test_synchronised_batch_norms_are_not_recorded() -> None:
    on_gpu = dataclasses.replace(choose("fp32", "off", 2), device="cuda", recorded=True)
    assert _hardware_for(RECIPE, on_gpu).recorded
    assert not _hardware_for(dataclasses.replace(RECIPE, sync_bn=True), on_gpu).recorded
