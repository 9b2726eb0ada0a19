"""How many processes and threads serve: what the default model's speed and the usable cores suggest.

A large network keeps every core busy from one process, with a thread a core; a small one is answered faster than
Python can take requests, so each core gets a process with an event loop and one thread of its own.
"""

import math
from dataclasses import dataclass

SMALL_MODEL_S = 0.005  # an image alone


@dataclass(frozen=True, slots=True)
class WorkerLayout:
    """Processes that run models, and threads in each that decode images and run them."""

    processes: int
    engine_threads: int


def choose_layout(
    *, single_image_s: float, is_on_gpu: bool, cores: int, processes: int | None, engine_threads: int | None
) -> WorkerLayout:
    """Return the layout for a model that takes `single_image_s` for one image; what an operator has set stays."""
    if processes is None:
        processes = cores if single_image_s < SMALL_MODEL_S and not is_on_gpu else 1
    return WorkerLayout(processes, engine_threads or max(1, math.ceil(cores / processes)))
