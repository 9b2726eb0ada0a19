"""Runs that are asked to stop, or killed, wherever they are: what is saved, and that they go on bit-equal."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.hardware.test_devices import float16
from tests.training.runs.test_run import RECIPE, train
from training.augmentation.mixing import Batch
from training.hardware.devices import Hardware, choose
from training.hardware.process_group import World
from training.networks.resnet import build
from training.runs.options import Interrupted, Options
from training.runs.progress import Progress
from training.runs.run import run
from training.trainer.gradients import ParallelGradients
from training.trainer.interrupts import Stop, Stopped
from training.weights.checkpoint import Checkpoint, load_latest

ROOT = Path(__file__).parents[2]

# Everything that has a state of its own.
EVERYTHING = dataclasses.replace(
    RECIPE,
    steps=18,
    mixup=0.3,
    cutmix=1.0,
    label_smoothing=0.1,
    micro_batches=2,
    clip_norm=1.0,
    cautious_rate=0.02,
    cautious_until_error=60.0,
    ema_decay=0.9,
    choose_best="loss",
    early_stopping_patience=3,
    precise_bn_images=32,
)


class Killed(BaseException):
    """What ends a process without asking it."""


class KilledAt(Progress):
    def __init__(self, step: int) -> None:
        super().__init__()
        self.last = step

    def show(self, step: int, *_: Any) -> None:
        if step >= self.last:
            raise Killed


def latest(folder: Path) -> Checkpoint:
    found = load_latest(folder)
    assert found is not None
    return found


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for ours, theirs in zip(one, other, strict=True):
            assert_equal(ours, theirs)
    else:
        assert one == other


@pytest.mark.parametrize(
    "hardware",
    [
        pytest.param(lambda: choose("bf16", "off", 2), id="bf16"),
        pytest.param(float16, id="fp16", marks=pytest.mark.long),  # slow where the processor has no such instructions
    ],
)
def test_with_everything_on_a_killed_run_goes_on_bit_equal(
    hardware: Callable[[], Hardware], images: Path, tmp_path: Path
) -> None:
    options = Options(out=tmp_path / "whole", data=images)
    whole = run(EVERYTHING, options, hardware(), Progress())
    options = Options(out=tmp_path / "killed", data=images, checkpoint_every_minutes=0)
    for kill_at in (5, 7, 8):  # within an epoch, at its end, at the beginning of one
        with pytest.raises(Killed):
            run(EVERYTHING, options, hardware(), KilledAt(kill_at))
        options = dataclasses.replace(options, resume=True)
    again = run(EVERYTHING, options, hardware(), Progress())
    ours, theirs = latest(tmp_path / "whole"), latest(tmp_path / "killed")
    assert ours.step == theirs.step
    assert_equal(ours.weights, theirs.weights)
    assert_equal(ours.state, theirs.state)
    assert whole["results"] == again["results"] and whole["best"] == again["best"]
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (tmp_path / "killed" / "metrics.jsonl").read_text()


def ask_in(place: str, monkeypatch: pytest.MonkeyPatch, *, call: int = 1) -> None:
    """Send this process SIGTERM at the beginning of a function's so manieth call."""
    module, name = place.rsplit(".", 1)
    original = getattr(sys.modules[module], name)
    calls = 0

    def asking(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **named)

    monkeypatch.setattr(place, asking)


def test_a_run_that_is_stopped_while_it_evaluates_an_epoch_saves_and_writes_that_line_later(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPE, choose_best="loss")
    whole = train(images, tmp_path / "whole", recipe)
    with monkeypatch.context() as patched:
        ask_in("training.runs.measurements.logits_of", patched)
        with pytest.raises(Interrupted, match="stopped at step 7, which is saved; continue with --resume"):
            train(images, tmp_path / "stopped", recipe)
    assert not (tmp_path / "stopped" / "metrics.jsonl").exists()
    again = train(images, tmp_path / "stopped", recipe, resume=True)
    assert again["results"] == whole["results"] and again["best"] == whole["best"]
    assert (tmp_path / "whole" / "metrics.jsonl").read_text() == (tmp_path / "stopped" / "metrics.jsonl").read_text()


def test_a_run_that_is_stopped_in_its_last_evaluation_has_saved_its_weights(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        ask_in("training.runs.measurements.logits_of", patched, call=3)
        with pytest.raises(
            Interrupted, match="while evaluating; the weights of step 12 are saved; continue with --resume"
        ):
            train(images, tmp_path / "run")
    assert latest(tmp_path / "run").step == 12
    assert train(images, tmp_path / "run", resume=True)["results"]


def test_a_run_that_is_stopped_while_it_packs_leaves_nothing(
    images: Path, tmp_path: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        ask_in("training.data.decoder_process.image_to_pixels", patched, call=20)
        with pytest.raises(Interrupted, match="stopped before the first step; give the same command again"):
            train(images, tmp_path / "run")
    assert not (tmp_path / "run").exists() and not list(private_cache.rglob("*.u8"))
    assert train(images, tmp_path / "run")["results"]


def test_a_signal_is_only_handled_while_a_handler_is_installed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = Stop()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_requested and not stop.is_overdue()
        with pytest.raises(Stopped), stop.at_once():
            raise AssertionError("it was asked before")
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_step_that_takes_too_long_is_left_as_if_it_had_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.trainer.gradients._SECONDS_BETWEEN_CHECKS", 0.01)
    gate, computed, compute = threading.Event(), threading.Semaphore(0), ParallelGradients._gradients

    def gated(self: ParallelGradients, *arguments: Any) -> Any:
        result = compute(self, *arguments)  # batch norms have seen the batch now
        computed.release()
        gate.wait()
        return result

    class OverdueWhenComputed(Stop):
        def is_overdue(self) -> bool:
            return computed.acquire(blocking=False)

    monkeypatch.setattr(ParallelGradients, "_gradients", gated)
    model = build("resnet8", num_classes=3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hardware = choose("fp32", "off", 2)
    batch = Batch(torch.randn(8, 3, 32, 32), torch.zeros(8, dtype=torch.int64))
    with pytest.raises(Stopped):
        ParallelGradients(model, hardware, World(), OverdueWhenComputed(), parts=2).compute_gradients(batch, whole=8)
    gate.set()
    assert_equal(dict(model.state_dict()), before)
    assert all(parameter.grad is None for parameter in model.parameters())


WORKER = """
import dataclasses, os, sys, time
from pathlib import Path
from tests.training.runs.test_run import RECIPE
from training.trainer import gradients as replicas
from training.cli.run_command import train
from training.hardware.process_group import World
from training.hardware.devices import choose
from training.runs.options import Options

def slow(*arguments):
    os.write(1, b"computing\\n")  # in one piece: both replicas say so
    time.sleep(600)  # a layer of a network that is too large for this machine

replicas.ParallelGradients._gradients = slow
recipe, options = dataclasses.replace(RECIPE, norm_batch=2), Options(out=Path(sys.argv[2]), data=Path(sys.argv[1]))
train(recipe, options, choose("fp32", "off", 2), World(), None)
"""


def test_sigterm_ends_a_process_whose_step_would_take_minutes(images: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(images), str(tmp_path / "run")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "computing\n"
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "stopped at step 0, which is saved; continue with --resume" in said
    assert latest(tmp_path / "run").step == 0
