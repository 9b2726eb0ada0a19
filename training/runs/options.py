"""The options of a run beside its recipe, and the errors that end one."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.images.preprocessing import Resizer, usual_resizer
from training.data.dataset import Reading


class RunError(Exception):
    """A run cannot start or continue. The message is one line that names the next step."""


class Interrupted(RunError):
    """A signal has stopped the run after it saved its state."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one run. A resumed run has the same ones."""

    out: Path
    data: Path
    test_data: Path | None = None
    seed: int = 0
    resume: bool = False
    time_budget_minutes: float | None = None
    checkpoint_every_minutes: float = 5.0
    max_skipped: float | None = None  # share of files, 0 to 1; None: the recipe's
    fixed: frozenset[str] = (
        frozenset()
    )  # fields of the recipe that the user has set; initial weights do not change them
    reading: Reading | None = None  # None: packed if the images fit the memory
    decoders: int | None = None  # processes that decode streamed images; None: one a core
    resizer: Resizer = field(default_factory=usual_resizer)
    command: dict[str, Any] = field(default_factory=dict)  # options of the command line, which run.json records
    began: float = field(default_factory=time.monotonic)  # from here on a time budget counts
