"""SIGTERM and SIGINT as requests to stop, so that a run saves its state before it ends.

A container runtime kills a process about ten seconds after SIGTERM. While weights change, a run ends after the current
step (`is_requested`), or abandons a step that takes too long (`is_overdue`). Where no state changes it ends `at_once`.
"""

import contextlib
import signal
import time
from collections.abc import Iterator

_STEP_LIMIT_S = 3.0  # for the current step, of the ten seconds before SIGKILL


class Stopped(Exception):
    """A stop was requested, and the current work was abandoned."""


class Stop:
    """Whether and when a stop was requested."""

    def __init__(self) -> None:
        self._requested_at: float | None = None
        self._raises = False

    @property
    def is_requested(self) -> bool:
        return self._requested_at is not None

    def is_overdue(self) -> bool:
        """Whether the request is older than a step may take."""
        return self._requested_at is not None and time.monotonic() - self._requested_at > _STEP_LIMIT_S

    def request(self) -> None:
        """Record a request to stop; raises Stopped within `at_once`."""
        if self._requested_at is None:
            self._requested_at = time.monotonic()
        if self._raises:
            raise Stopped

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Raise Stopped inside the block as soon as a stop is requested, or if it was requested before."""
        self._raises = True
        try:
            if self.is_requested:
                raise Stopped
            yield
        finally:
            self._raises = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Turn SIGTERM and SIGINT inside the block into requests to stop."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        previous = {number: signal.signal(number, lambda _number, _frame: self.request()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
