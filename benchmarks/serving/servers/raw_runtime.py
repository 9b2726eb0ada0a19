"""ONNX Runtime without a server around it, the limit that no server can beat: `raw_runtime.py MODEL FOLDER`.

`alone` is one caller with one image at a time, `busy` as many callers and images at once as is best; for both,
the sensible numbers of threads and batch sizes are tried at the start and the best one is measured from then on. Reads
lines such as `busy 2.0`, waits for nothing else, and answers each with images a second. Decoding is not included.
"""

import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from benchmarks.serving.peers.network import Network
from service.system.cores import available_cores

_TRY_S = 0.7
_BATCHES = (1, 8, 32)


def rate(run: Callable[[], object], *, callers: int, batch: int, seconds: float) -> float:
    """Return images a second when so many threads call `run`, which does `batch` at a time."""
    started = time.perf_counter()
    done = [0] * callers

    def work(caller: int) -> None:
        while time.perf_counter() < started + seconds:
            run()
            done[caller] += batch

    threads = [threading.Thread(target=work, args=(caller,)) for caller in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - started)


def _ways(model: str, images: Iterable[bytes]) -> dict[str, list[Callable[[float], float]]]:
    cores = available_cores()
    os.environ["BENCHMARK_MODEL"] = model
    single = Network(intra_op_threads=1)
    whole = Network(intra_op_threads=cores, spins=True)
    images = np.stack([single.pixels(image) for image in itertools.islice(itertools.cycle(images), max(_BATCHES))])

    def way(network: Network, callers: int, batch: int) -> Callable[[float], float]:
        return lambda seconds: rate(
            lambda: network.answers(images[:batch]), callers=callers, batch=batch, seconds=seconds
        )

    return {
        "alone": [way(single, 1, 1), way(whole, 1, 1)],
        "busy": [way(single, cores, batch) for batch in _BATCHES] + [way(whole, 1, batch) for batch in _BATCHES],
    }


def main() -> None:
    model, folder = sys.argv[1:]
    ways = _ways(model, [path.read_bytes() for path in sorted(Path(folder).glob("*.jpg"))])
    best = {name: max(tried, key=lambda measure: measure(_TRY_S)) for name, tried in ways.items()}
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        name, seconds = line.split()
        sys.stdout.write(f"{best[name](float(seconds)):.3f}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
