"""FastAPI as its tutorial has it: an `UploadFile`, and the model called on a thread of the pool.

Run by uvicorn with uvloop and httptools, without an access log; the answer is written by orjson. With one process the
session has all cores and ONNX Runtime's own default of spinning, which is what makes it quick for a single client; with
a process for each core the session has one thread.
"""

import os

import orjson
from fastapi import FastAPI, Response, UploadFile

from benchmarks.serving.peers.network import CORES, Network

_WORKERS = int(os.environ["BENCHMARK_WORKERS"])
_network = Network(intra_op_threads=CORES, spins=True) if _WORKERS == 1 else Network(intra_op_threads=1)

app = FastAPI()


@app.post("/classify")
def classify(file: UploadFile) -> Response:
    return Response(orjson.dumps(_network.classify([file.file.read()])[0]), media_type="application/json")
