"""LitServe: a worker and an HTTP process for each core, over its ZeroMQ queue.

Tuned: for a small network batches of 8 with a wait of 1 ms, for a large one none; the faster queue that its manual
recommends above 100 requests a second; the image is read in the HTTP process and crosses as bytes.
"""

import sys
from typing import Annotated, Any

import litserve
import numpy as np
import orjson
from fastapi import File, Response

from benchmarks.serving.peers.network import CORES, IS_SMALL, Network


class Classify(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self._network = Network(intra_op_threads=1)

    def decode_request(self, request: Annotated[bytes, File(alias="file")]) -> Any:
        return self._network.pixels(request)

    def batch(self, inputs: list[Any]) -> Any:
        return np.stack(inputs)

    def predict(self, x: Any) -> Any:
        return self._network.answers(x if IS_SMALL else x[None])

    def unbatch(self, output: Any) -> Any:
        return output

    def encode_response(self, output: Any) -> Response:
        return Response(orjson.dumps(output if IS_SMALL else output[0]), media_type="application/json")


if __name__ == "__main__":
    batching: dict[str, Any] = {"max_batch_size": 8, "batch_timeout": 0.001} if IS_SMALL else {}
    server = litserve.LitServer(
        Classify(api_path="/classify", **batching),
        accelerator="cpu",
        devices=1,
        workers_per_device=CORES,
        fast_queue=True,
        timeout=60,
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=CORES,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )
