"""The costs and gains of the two CPU sessions: memory, start, and a single image on one core and on all.

`python benchmarks/sessions.py [MODEL.onnx]`, by default a ResNet-50 with random weights. Each way
runs in a process of its own: both sessions with weights of their own, the first start, which makes the optimized graph,
and later ones, which map it. Memory is PSS after the runs; times are medians of 15, so the machine must be idle.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from service.engine.engine import Engine, EngineOptions
from service.system.cores import available_cores

WAYS = ("plain", "mapped, first start", "mapped")
RUNS = 15


def pss_mib() -> float:
    """Return this process's share of memory; pages that others map, too, count in part."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def measure(model: Path, way: str, cache: Path) -> str:
    """Return one line of the table."""
    before = pss_mib()
    started = time.perf_counter()
    host = EngineOptions(exclusive_threads=available_cores(), cache=None if way == "plain" else cache)
    engine = Engine(model.read_bytes(), providers="cpu", host=host)
    load_s = time.perf_counter() - started
    image = np.random.default_rng(0).integers(0, 256, (1, engine.input_height, engine.input_width, 3), np.uint8)
    times = {
        exclusive: [seconds(engine, image, exclusive=exclusive) for _ in range(RUNS)] for exclusive in (False, True)
    }
    shared, exclusive = (statistics.median(times[mode]) * 1e3 for mode in (False, True))
    return f"{way:20} {load_s:7.2f} s {pss_mib() - before:8.0f} MiB {shared:9.2f} ms {exclusive:9.2f} ms"


def seconds(engine: Engine, image: "np.ndarray", *, exclusive: bool) -> float:
    started = time.perf_counter()
    engine.run(image, exclusive=exclusive)
    return time.perf_counter() - started


def random_resnet50(folder: Path) -> Path:
    path = folder / "resnet50.onnx"
    command = [Path(sys.executable).with_name("export-onnx"), "--depth", "50", "--weights", "random", "--output", path]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = Path(sys.argv[1]) if len(sys.argv) > 1 else random_resnet50(folder)
        sys.stdout.write(f"{model.name}, {available_cores()} cores, load {os.getloadavg()[0]:.1f}\n")
        sys.stdout.write(f"{'weights':20} {'start':>9} {'memory':>12} {'one core':>12} {'all cores':>12}\n")
        for way in WAYS:
            command = [sys.executable, __file__, str(model), way, str(folder / "cache")]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            sys.stdout.write(done.stdout)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        sys.stdout.write(measure(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])) + "\n")
    else:
        main()
