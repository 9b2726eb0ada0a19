"""SIGTERM and SIGINT, heard instead of obeyed, so that a run saves where it is before it ends.

A run that is asked to stop has about ten seconds. While weights change it ends after the step at hand (`asked`), or
leaves that step if it takes too long (`is_overdue`); where nothing can be left half done it ends `at_once`.
"""

import contextlib
import signal
import time
from collections.abc import Iterator

_PATIENCE_S = 3.0  # for the step at hand


class Stopped(Exception):
    """Somebody asked this process to stop, and what was under way has been left."""


class Stop:
    """Whether somebody has asked this process to stop, and since when."""

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._raises = False

    @property
    def asked(self) -> bool:
        return self._asked_at is not None

    def is_overdue(self) -> bool:
        """Whether whoever asked has waited as long as a step may take."""
        return self._asked_at is not None and time.monotonic() - self._asked_at > _PATIENCE_S

    def ask(self) -> None:
        """Ask to stop; raises Stopped within `at_once`."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()
        if self._raises:
            raise Stopped

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, Stopped is raised as soon as somebody asks, or has asked before."""
        self._raises = True
        try:
            if self.asked:
                raise Stopped
            yield
        finally:
            self._raises = False

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Within, SIGTERM and SIGINT ask to stop instead of ending the process."""
        numbers = (signal.SIGTERM, signal.SIGINT)
        previous = {number: signal.signal(number, lambda _number, _frame: self.ask()) for number in numbers}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
