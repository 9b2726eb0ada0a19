"""The progress of a run: a bar on a terminal, plain lines elsewhere."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

_SECONDS_BETWEEN_LINES = 30.0  # without a terminal
_SECONDS_BETWEEN_EPOCHS = 5.0  # a small data set has many epochs a second; metrics.jsonl has all of them


class Progress:
    """Shows one run on standard error."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=is_quiet)
        self._bar: Bar | None = None
        self._last_line = time.monotonic()
        self._last_epoch = 0.0
        self._seen: tuple[float, int] | None = None  # time and step of the last measurement of the speed
        self._images_per_s = 0.0

    def log(self, line: str) -> None:
        """Show one line."""
        self._console.print(line, markup=False)

    def show(self, step: int, total_steps: int, batch_size: int, means: tuple[float, float]) -> None:
        """Show the position of the run, with this epoch's mean loss and error in percent."""
        self._measure_speed(step, batch_size)
        text = f"{self._images_per_s:,.0f} images/s  loss {means[0]:.4f}  accuracy {100 - means[1]:.2f}%"
        if self._console.is_terminal and not self._console.quiet:
            if self._bar is None:
                self._bar = self._new_bar()
                self._bar.add_task("", total=total_steps)
            self._bar.update(self._bar.task_ids[0], completed=step, total=total_steps, description=text)
            if step >= total_steps:
                self.close()
        elif self._images_per_s and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            minutes = (total_steps - step) * batch_size / self._images_per_s / 60
            self.log(f"step {step:,}/{total_steps:,}  {text}  {minutes:.0f} min left")

    def log_epoch(self, line: dict[str, Any], total_steps: int) -> None:
        """Show a line of metrics.jsonl, unless one was shown just before."""
        is_last = line["step"] >= total_steps
        if time.monotonic() - self._last_epoch < _SECONDS_BETWEEN_EPOCHS and not is_last:
            return
        self._last_epoch = time.monotonic()
        parts = [f"step {line['step']:,}/{total_steps:,}", f"train error {line['train_error']:.2f}%"]
        for key, name in (("held_out_error", "held-out error"), ("test_error", "test error")):
            if key in line:
                parts.append(f"{name} {line[key]:.2f}%")
        self.log(f"epoch {line['epoch']:g}: " + "  ".join(parts))

    def close(self) -> None:
        """Restore the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _measure_speed(self, step: int, batch_size: int) -> None:
        now = time.monotonic()
        if self._seen is not None and step > self._seen[1]:
            speed = (step - self._seen[1]) * batch_size / max(now - self._seen[0], 1e-9)
            self._images_per_s = speed if self._images_per_s == 0 else 0.9 * self._images_per_s + 0.1 * speed
        self._seen = (now, step)

    def _new_bar(self) -> Bar:
        columns = (TextColumn("{task.completed:,}/{task.total:,}"), BarColumn(), TextColumn("{task.description}"))
        bar = Bar(*columns, TimeRemainingColumn(), console=self._console)
        bar.start()
        return bar
