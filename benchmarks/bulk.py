"""`classify --out` beside plain ONNX Runtime: `python -m benchmarks.bulk MODEL INPUT [PAIRS [FORMAT]]`.

MODEL is a model's file, INPUT a folder, list or tar of images. Each pair is one run over all images, and one in which
as many threads put as many decoded images through the engine, in batches of the same size. Pairs alternate in one
process. The output is images a second and CPU time an image of both, the CPU time of decoding one, and the median
ratios of the pairs.
"""

import io
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.cli.bulk import BulkOptions, bulk_batch, classify_into
from service.cli.bulk_inputs import open_input
from service.engine.engine import Engine
from service.errors import ServiceError
from service.images.preprocessing import image_to_pixels
from service.inference.classifier import Classifier
from service.inference.registry import load
from service.model_files.repository import ModelFile
from service.system.cores import available_cores

_OPTIONS = BulkOptions(top_k=5, max_image_bytes=20_000_000, threads=available_cores())
_PIXELS = 256  # decoded images that the runtime gets in turns


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Return the seconds that some work takes, and its CPU seconds on all threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def decoded(source: str, classifier: Classifier) -> tuple[NDArray[np.uint8], int, float]:
    """Return the pixels of the first good images, the number of all images, and the CPU seconds to decode one."""
    steps = classifier.card.preprocessing
    pixels: list[NDArray[np.uint8]] = []
    count, decode_s = 0, 0.0
    for item in open_input(source):
        count += 1
        if len(pixels) < _PIXELS:
            try:
                content = item.read(_OPTIONS.max_image_bytes)
                started = time.process_time()
                pixels.append(image_to_pixels(content, shorter_side=steps.shorter_side, crop=steps.crop)[0])
                decode_s += time.process_time() - started
            except ServiceError:
                continue
    return np.stack(pixels), count, decode_s / len(pixels)


def run_plain(engine: Engine, pixels: NDArray[np.uint8], count: int, batch: int) -> None:
    """Put `count` images through the runtime in batches, with a thread for each core."""
    starts = islice(cycle(range(0, max(1, len(pixels) - batch), batch)), -(-count // batch))
    with ThreadPoolExecutor(_OPTIONS.threads) as threads:
        for future in [threads.submit(engine.run, pixels[start : start + batch]) for start in starts]:
            future.result()


def run_bulk(source: str, classifier: Classifier, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        classify_into(Path(folder) / f"answers.{ending}", source, classifier, _OPTIONS, resume=False)


def main() -> None:
    model, source = Path(sys.argv[1]), sys.argv[2]
    pairs = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    ending = sys.argv[4] if len(sys.argv) > 4 else "jsonl"
    classifier = load(ModelFile("model", "1", model), providers="cpu", max_batch=None)
    assert isinstance(classifier, Classifier)
    engine = Engine(model.read_bytes(), providers="cpu")
    pixels, count, decode_s = decoded(source, classifier)
    batch = bulk_batch(classifier)
    ratios: list[tuple[float, float]] = []
    for _ in range(pairs):
        plain = timed(lambda: run_plain(engine, pixels, count, batch))
        bulk = timed(lambda: run_bulk(source, classifier, ending))
        ratios.append((plain[0] / bulk[0], plain[1] / bulk[1]))
        sys.stdout.write(
            f"runtime {count / plain[0]:8.1f} images/s {plain[1] / count * 1e6:8.0f} us CPU   "
            f"classify {count / bulk[0]:8.1f} images/s {bulk[1] / count * 1e6:8.0f} us CPU\n"
        )
    wall, cpu = (statistics.median(values) for values in zip(*ratios, strict=True))
    sys.stdout.write(f"{count} images in batches of {batch}: {wall:.3f} of the images/s, {cpu:.3f} by CPU time; ")
    sys.stdout.write(f"decoding takes {decode_s * 1e6:.0f} us of CPU\n")


if __name__ == "__main__":
    main()
