"""A run with a time budget ends within 5% of it, by a clock that training and evaluation advance."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.training.runs.test_run import RECIPE, train
from training.runs import run as run_module
from training.runs.options import Interrupted
from training.runs.progress import Progress
from training.runs.time_budget import TimeBudget
from training.trainer.loop import Training
from training.weights.checkpoint import load_latest

IMAGE_S, CHECKPOINT_S = 0.01, 0.2


class Clock:
    """Seconds that only steps, evaluations and checkpoints take; `step_s` gives the duration of a step by the time.

    Steps and evaluations compute nothing, unless they are `real`.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, step_s: Callable[[float], float], real: bool = False) -> None:
        self.now = 1000.0
        stands_in = SimpleNamespace(monotonic=lambda: self.now)
        for module in ("run", "time_budget"):
            monkeypatch.setattr(f"training.runs.{module}.time", stands_in)
        trained = Training.train

        def train_slowly(training: Training, steps: int, *rest: Any) -> None:
            if real:
                trained(training, steps, *rest)
            else:
                training.step += steps
                training.sums += steps * torch.tensor([1.0, 50.0, 1.0])
            self.now += sum(step_s(self.now - 1000) for _ in range(steps))

        monkeypatch.setattr(Training, "train", train_slowly)
        results = {"measure_epoch": {"held_out_error": 50.0}, "final_results": {}, "final_layer_responses": {}}
        images = {"measure_epoch": 6, "final_results": 120, "final_layer_responses": 120}
        for name, result in results.items():
            self._takes(monkeypatch, name, images[name] * IMAGE_S, None if real else result)
        self._takes(monkeypatch, "save", CHECKPOINT_S, None)

    def _takes(self, monkeypatch: pytest.MonkeyPatch, name: str, seconds: float, result: object | None) -> None:
        original = getattr(run_module, name)

        def slow(*arguments: Any) -> Any:
            self.now += seconds
            return original(*arguments) if result is None else result

        monkeypatch.setattr(run_module, name, slow)


@pytest.mark.parametrize(
    "step_s", [lambda _: 0.5, lambda now: 0.4 if now < 20 else 0.8, lambda now: 1.0 if now < 30 else 0.5]
)
def test_a_run_ends_within_5_percent_of_its_budget(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: Callable[[float], float]
) -> None:
    clock = Clock(monkeypatch, step_s)
    facts = train(images, tmp_path / "run", time_budget_minutes=1.0, began=clock.now)
    assert clock.now - 1000 == pytest.approx(60, rel=0.05)
    found = load_latest(tmp_path / "run")
    assert found is not None and found.step == facts["steps"] and "stopped_early" not in facts


def test_a_resumed_run_has_the_rest_of_its_budget(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, lambda _: 0.5)

    class Stopping(Progress):
        def show(self, step: int, *_: Any) -> None:
            if 20 <= step < 40:
                raise Interrupted("stopped")

    monkeypatch.setattr("tests.training.runs.test_run.Progress", Stopping)
    with pytest.raises(Interrupted):
        train(images, tmp_path / "run", time_budget_minutes=0.5, began=clock.now, checkpoint_every_minutes=0.0)
    spent = clock.now - 1000
    monkeypatch.setattr("tests.training.runs.test_run.Progress", Progress)
    clock.now += 3600
    began = clock.now
    train(images, tmp_path / "run", time_budget_minutes=0.5, began=began, resume=True)
    assert clock.now - began + spent == pytest.approx(30, abs=3)


def test_a_run_that_finished_within_its_budget_trains_no_further(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, lambda _: 1.0)
    facts = train(images, tmp_path / "run", time_budget_minutes=0.3, began=clock.now)
    again = train(images, tmp_path / "run", time_budget_minutes=5.0, began=clock.now, resume=True)
    assert again["steps"] == facts["steps"] and again["speed"] == facts["speed"]


def test_timing_the_budget_leaves_no_trace_in_the_weights(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch, lambda _: 1.0, real=True)
    monkeypatch.setattr(TimeBudget, "is_due", lambda *_: False)
    budgeted = train(images, tmp_path / "budgeted", time_budget_minutes=0.5, began=clock.now)
    train(images, tmp_path / "counted", dataclasses.replace(RECIPE, steps=budgeted["steps"]))
    one, other = load_latest(tmp_path / "budgeted"), load_latest(tmp_path / "counted")
    assert one and other and budgeted["steps"] > 1
    assert all(torch.equal(one.weights[name], other.weights[name]) for name in one.weights)
