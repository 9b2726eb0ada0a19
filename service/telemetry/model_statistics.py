"""How much each model has worked, as lists of numbers that can be added up over processes.

A request counts once, with the means over its rows, so that its parts stay below its whole; an execution is a run of
the model, shared by the rows of its batch, and each row counts its share.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

# Of a model: rows, executions, requests answered and their seconds, requests failed and their seconds, then the seconds
# of answered requests that went into waiting, decoding, running, and writing the answer.
MODEL_NUMBERS = 10


class Row(Protocol):
    """What an answer to one row says of its time."""

    @property
    def batch_size(self) -> int: ...
    @property
    def queue_s(self) -> float: ...
    @property
    def decode_s(self) -> float: ...
    @property
    def inference_s(self) -> float: ...


def model_key(model: str) -> str:
    """Return the key of the numbers of a model, given as `name:version`."""
    return f"inference\n{model}"


def batch_key(model: str, size: int) -> str:
    """Return the key of the numbers of one batch size."""
    return f"{batch_prefix(model)}{size}"


def batch_prefix(model: str) -> str:
    """Return what the keys of all batch sizes of a model begin with."""
    return f"inference_batch\n{model}\n"


@dataclass(slots=True)
class InferenceCounts:
    """What one process has counted."""

    numbers: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # by key
    last_ms: dict[str, float] = field(default_factory=dict)  # of each model's last answer, since 1970

    def note(self, model: str, rows: Sequence[Row], total_s: float, output_s: float, when: float) -> None:
        """Count a request that was answered at this time; writing the answer took `output_s` of the whole."""
        queue_s = decode_s = inference_s = executions = 0.0
        for row in rows:  # of a batch size: executions, and the seconds that they decoded and ran
            share = 1 / row.batch_size
            executions += share
            queue_s += row.queue_s
            decode_s += row.decode_s
            inference_s += row.inference_s
            self._add(batch_key(model, row.batch_size), (share, row.decode_s, row.inference_s * share))
        n = len(rows)
        means = (queue_s / n, decode_s / n, inference_s / n)
        self._add(model_key(model), (n, executions, 1, total_s, 0, 0, *means, output_s))
        self.last_ms[model] = when * 1000

    def note_failure(self, model: str, total_s: float) -> None:
        """Count a request that was not."""
        self._add(model_key(model), (0, 0, 0, 0, 1, total_s, 0, 0, 0, 0))

    def _add(self, key: str, numbers: Sequence[float]) -> None:
        before = self.numbers[key]
        if before:
            for place, number in enumerate(numbers):
                before[place] += number
        else:
            before.extend(numbers)
