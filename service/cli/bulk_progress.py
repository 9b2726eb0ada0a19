"""The progress of a bulk classification on standard error: images, images a second, and the remaining time."""

import sys
import time

from service.cli.bulk_inputs import BulkInput

_ON_TERMINAL_S, _ELSEWHERE_S = 1.0, 10.0
_MINUTE_S, _HOUR_S = 60, 3600


class Progress:
    """Counts images, and prints a line every second on a terminal, every ten seconds elsewhere."""

    def __init__(self, source: BulkInput) -> None:
        self._source = source
        self._is_terminal = sys.stderr.isatty()
        self._interval_s = _ON_TERMINAL_S if self._is_terminal else _ELSEWHERE_S
        self._started_at = self._printed_at = time.monotonic()
        self._fraction_before = 0.0  # of the input, when the first image was classified
        self.skipped = self.done = self.problems = 0

    def skip(self) -> None:
        """Count an image that already has a row."""
        self.skipped += 1
        self._started_at = time.monotonic()
        self._fraction_before = self._source.fraction or 0.0
        self.tick()

    def add(self, images: int, problems: int) -> None:
        """Count written images, and how many of them have a problem."""
        self.done += images
        self.problems += problems
        self.tick()

    def tick(self) -> None:
        """Print a line if the last one is old enough."""
        now = time.monotonic()
        if now - self._printed_at >= self._interval_s:
            self._printed_at = now
            self._print(f"{self._counts()}, {self._rate():,.1f} images/s{self._time_left()}", end="")

    def finish(self) -> None:
        """Print the totals."""
        self._print(f"{self._counts()} in {_span(time.monotonic() - self._started_at)}, {self._rate():,.1f} images/s")

    def _print(self, text: str, end: str = "\n") -> None:
        line = f"classify: {text}"
        sys.stderr.write(f"\r{line}\x1b[K{end}" if self._is_terminal else f"{line}\n")
        sys.stderr.flush()

    def _counts(self) -> str:
        total = self._source.total
        seen = self.done + self.skipped
        of_all = "" if total is None else f" of {total:,}"
        before = f", {self.skipped:,} of them before" if self.skipped else ""
        return f"{seen:,}{of_all} images{before}, {self.problems:,} with a problem"

    def _rate(self) -> float:
        return self.done / max(time.monotonic() - self._started_at, 1e-3)

    def _time_left(self) -> str:
        left_s = self._seconds_left()
        return "" if left_s is None else f", {_span(left_s)} left"

    def _seconds_left(self) -> float | None:
        if not self.done:
            return None
        if self._source.total is not None:
            return max(0, self._source.total - self.done - self.skipped) / self._rate()
        fraction = self._source.fraction
        if fraction is None or fraction <= self._fraction_before:
            return None
        elapsed_s = time.monotonic() - self._started_at
        return elapsed_s * (1 - fraction) / (fraction - self._fraction_before)


def _span(seconds: float) -> str:
    whole = round(seconds)
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
