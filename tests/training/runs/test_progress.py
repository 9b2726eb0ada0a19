import io
from typing import Any

import pytest
from rich.console import Console

from training.runs import progress
from training.runs.progress import Progress

LINE = {"step": 7, "epoch": 1.0, "train_error": 40.0, "held_out_error": 30.5}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def show(shown: Progress, clock: Clock, steps: int) -> None:
    for step in range(steps):
        clock.now += 1.0
        shown.show(step, steps, 128, (0.5, 25.0))


def test_elsewhere_than_on_a_terminal_a_line_comes_now_and_then(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    show(Progress(), clock, 100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert lines[0] == "step 30/100  128 images/s  loss 0.5000  accuracy 75.00%  1 min left"


def test_on_a_terminal_a_bar_shows_speed_loss_accuracy_and_the_time_left() -> None:
    terminal = io.StringIO()
    shown = Progress()
    shown._console = Console(file=terminal, force_terminal=True, width=140)
    for step in range(5):
        shown.show(step, 5, 128, (0.5, 25.0))
    shown.show(5, 5, 128, (0.25, 12.5))
    output = terminal.getvalue()
    assert "5/5" in output and "images/s" in output and "loss 0.2500" in output and "accuracy 87.50%" in output
    assert "0:00:00" in output


def test_epochs_in_quick_succession_are_not_all_shown_but_the_last_is(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Progress()
    for step in range(10):
        clock.now += 1.0
        line: dict[str, Any] = LINE | {"step": step + 1, "epoch": float(step)}
        shown.log_epoch(line, 10)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 0", "epoch 5", "epoch 9"]
    assert lines[0].endswith("train error 40.00%  held-out error 30.50%")


def test_a_process_that_is_not_the_first_says_nothing(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    shown = Progress(is_quiet=True)
    show(shown, clock, 100)
    shown.log_epoch(LINE, 7)
    assert capsys.readouterr() == ("", "")
