"""The speed of exported files on a GPU, through the service's engine.

`python -m benchmarks.gpu [--providers cuda] FILE...`: for each file the milliseconds of a batch and images a
second at 1, 2, 4 … 128 images, page-locked copies in and out included, and how far the answers are from the CPU's.
Medians of several repeats. Prints Markdown; what was measured so far is in gpu.md.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from service.engine.engine import Engine, EngineOptions

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
_REPEATS, _SECONDS = 7, 0.05
_COMPARED = 16  # images


def milliseconds(work: Callable[[], object], seconds: float = _SECONDS) -> float:
    """Return how long one call takes: the median of repeats, each of as many calls as its time holds."""
    for _ in range(3):
        work()
    began = time.perf_counter()
    work()
    calls = max(1, int(seconds / (time.perf_counter() - began)))
    times = []
    for _ in range(_REPEATS):
        began = time.perf_counter()
        for _ in range(calls):
            work()
        times.append(1000 * (time.perf_counter() - began) / calls)
    return median(times)


def difference(engine: Engine, model: bytes, images: NDArray[np.uint8]) -> float:
    """Return the largest difference of a probability from the CPU's."""
    on_cpu = Engine(model, providers="cpu")
    (requested,), (found,) = (one.run(images[:_COMPARED], ("probabilities",)) for one in (on_cpu, engine))
    return float(np.abs(found - requested).max())


def section(name: str, model: bytes, providers: str, batches: Sequence[int]) -> str:
    """Return a heading, what runs the file, and a table."""
    engine = Engine(model, providers=providers, host=EngineOptions(largest_gpu_batch=max(batches)))
    shape = (max(batches), engine.input_height, engine.input_width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    lines = [
        f"### {name}",
        "",
        f"{engine.provider}, batches of at most {engine.largest_batch or 'any size'}; probabilities differ from the "
        f"CPU's by at most {difference(engine, model, images):.1e}.",
        "",
        "| batch | ms | images/s |",
        "|---|---|---|",
    ]
    for batch in batches:
        part = images[:batch]
        took = milliseconds(lambda part=part: engine.run(part))  # type: ignore[misc]
        lines.append(f"| {batch} | {took:.3f} | {1000 * batch / took:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--providers", default="cuda", choices=["cuda", "tensorrt", "cpu"])
    asked = parser.parse_args()
    for file in asked.files:
        print(section(str(file), file.read_bytes(), asked.providers, BATCHES), end="\n\n", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
