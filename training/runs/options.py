"""The options of a run beside its recipe, and the errors that end one."""

from dataclasses import dataclass, field
from pathlib import Path

from service.images.preprocessing import Resizer, usual_resizer
from training.data.dataset import Reading


class RunError(Exception):
    """A run cannot start or continue. The message is one line that names the next step."""


class Interrupted(RunError):
    """A signal has stopped the run, after it saved what it had."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of one run. A run that is resumed takes the same ones."""

    out: Path
    data: Path
    test_data: Path | None = None
    seed: int = 0
    resume: bool = False
    time_budget_minutes: float | None = None
    checkpoint_every_minutes: float = 5.0
    max_skipped: float | None = None  # share of files, 0 to 1; None: what the recipe allows
    fixed: frozenset[str] = frozenset()  # fields of the recipe that the user has set, which weights do not change
    reading: Reading | None = None  # packed or streamed; None: what fits is packed
    decoders: int | None = None  # processes that decode what is streamed; None: one a core
    resizer: Resizer = field(default_factory=usual_resizer)
