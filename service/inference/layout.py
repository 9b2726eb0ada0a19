"""The number of worker processes and engine threads, from the default model's speed and the available cores.

All engine threads of a process share one queue, so one process has the shortest waits. Its event loop is the limit: for
a small model it can be slower than the cores that it feeds. Then several processes share the cores.
"""

import math
from dataclasses import dataclass

_HTTP_S = 0.0004  # CPU time of the event loop for one request
_BUSY_LOOP = 0.25  # the share of time that an event loop may be busy; above it, requests wait for the loop


@dataclass(frozen=True, slots=True)
class WorkerLayout:
    """The number of worker processes, and of threads in each that decode images and run models."""

    processes: int
    engine_threads: int


def choose_layout(
    *, single_image_s: float, is_on_gpu: bool, cores: int, processes: int | None, engine_threads: int | None
) -> WorkerLayout:
    """Return the layout for a model that takes `single_image_s` seconds for one image; numbers that are set stay."""
    if processes is None:
        processes = 1 if is_on_gpu else _event_loops(single_image_s, cores)
    return WorkerLayout(processes, engine_threads or max(1, math.ceil(cores / processes)))


def _event_loops(single_image_s: float, cores: int) -> int:
    """Return how many event loops keep so many cores busy with a model, at most one for each core."""
    if single_image_s <= 0:
        return cores
    return min(cores, math.ceil(cores * _HTTP_S / single_image_s / _BUSY_LOOP))
