"""Statistics of each model, as lists of numbers that are summed over processes.

A request counts once, with the means over its rows, so that the sum of its parts is below the whole. An execution is a
run of the model, shared by the rows of its batch; each row counts its share.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

# Of a model: rows, executions, requests answered and their seconds, requests failed and their seconds, then the seconds
# of answered requests for waiting, decoding, running, and writing the response.
MODEL_NUMBERS = 10


class Row(Protocol):
    """The timings of one row."""

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
    """Return the common prefix of the keys of all batch sizes of a model."""
    return f"inference_batch\n{model}\n"


@dataclass(slots=True)
class InferenceCounts:
    """The statistics of one process."""

    numbers: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # by key
    last_ms: dict[str, float] = field(default_factory=dict)  # the time of each model's last response, since 1970

    def note(self, model: str, rows: Sequence[Row], total_s: float, output_s: float, when: float) -> None:
        """Count a request that was answered at this time; writing the response took `output_s` of the total."""
        queue_s = decode_s = inference_s = executions = 0.0
        for row in rows:  # for the batch size: executions, and the seconds of decoding and running
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
        """Count a failed request."""
        self._add(model_key(model), (0, 0, 0, 0, 1, total_s, 0, 0, 0, 0))

    def _add(self, key: str, numbers: Sequence[float]) -> None:
        before = self.numbers[key]
        if before:
            for place, number in enumerate(numbers):
                before[place] += number
        else:
            before.extend(numbers)
