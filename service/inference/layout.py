"""The number of worker processes and engine threads, from the default model's speed and the available cores.

A large network uses all cores from one process, with one thread for each core. A small network is faster than one event
loop can accept requests, so each core has a process with its own event loop and one thread.
"""

import math
from dataclasses import dataclass

SMALL_MODEL_S = 0.005  # a batch of one image


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
        processes = cores if single_image_s < SMALL_MODEL_S and not is_on_gpu else 1
    return WorkerLayout(processes, engine_threads or max(1, math.ceil(cores / processes)))
