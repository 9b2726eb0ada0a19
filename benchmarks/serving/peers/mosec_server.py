"""mosec: a process for each core behind its Rust front. It takes the raw bytes of an image, the cheapest there is.

Tuned: one stage, so that no array crosses a pipe; for a small network batches of 8 and the shortest possible wait, 1 ms
(its default of 10 ms makes it 2 to 10 times slower); for a large one no batches, as they bring nothing on a CPU and
its wait would only delay; orjson instead of indented json.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from mosec import Server, Worker

from benchmarks.serving.peers.network import CORES, IS_SMALL, Network


class Classify(Worker):
    def __init__(self) -> None:
        super().__init__()
        self._network = Network(intra_op_threads=1)

    def deserialize(self, data: bytes) -> bytes:
        return data

    def serialize(self, data: Any) -> bytes:
        return orjson.dumps(data)

    def forward(self, data: Any) -> Any:
        if not IS_SMALL:
            return self._network.classify([data])[0]
        images: Sequence[bytes] = data
        return self._network.classify(images)


if __name__ == "__main__":
    server = Server()
    if IS_SMALL:
        server.append_worker(Classify, num=CORES, max_batch_size=8, max_wait_time=1, route="/classify")
    else:
        server.append_worker(Classify, num=CORES, route="/classify")
    server.run()
