"""BentoML: a worker for each core, an image as `Path`, which is its documented type for files.

Tuned: for a small network its adaptive batching, 8 at most, for a large one none; no access log or metrics. Batching
takes lists only, so that a client sends a list of one. `max_latency_ms` stays at its default: with 10 it answered 503
from 8 clients on.
"""

from pathlib import Path
from typing import Any

import bentoml

from benchmarks.serving.peers.network import CORES, IS_SMALL, Network


@bentoml.service(
    workers=CORES,
    traffic={"timeout": 60},
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
class Classify:
    def __init__(self) -> None:
        self._network = Network(intra_op_threads=1)

    if IS_SMALL:

        @bentoml.api(route="/classify", batchable=True, max_batch_size=8)
        def classify(self, file: list[Path]) -> list[dict[str, Any]]:
            return self._network.classify([path.read_bytes() for path in file])

    else:

        @bentoml.api(route="/classify")
        def classify(self, file: Path) -> dict[str, Any]:
            return self._network.classify([file.read_bytes()])[0]
