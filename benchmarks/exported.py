"""The speed of exported files, beside the same network in PyTorch and in a stock export.

`python -m benchmarks.exported [--networks 20 18 50] [--seconds 5] [--no-compile] [--output FILE]`: images a
second at batches of 1, 8 and 32, with 1 and 2 threads, for each precision (through the service's engine), for PyTorch
eager and compiled, and for a plain `torch.onnx.export` in ONNX Runtime with its defaults. Those three get images that
are normalized already; ours start at uint8 pixels. Medians over rounds that take turns, so that other work on the
machine hits all alike; written as a Markdown file, with commit and processor.
"""

import argparse
import io
import platform
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from export.graph.activation_ranges import Histograms
from export.graph.fp16 import to_half
from export.graph.int8 import quantise, tensors_to_watch
from export.graph.to_onnx import Normalize, deployable, serialise, to_onnx
from export.options import Target
from export.sources.network_spec import NetworkSpec
from export.sources.sample_images import sample_pixels
from export.sources.trained import Source, from_random_weights
from service.engine.engine import Engine

BATCHES, THREADS, ROUNDS = (1, 8, 32), (1, 2), 5
OUTPUT = Path(__file__).with_suffix(".md")

Work = Callable[[], object]
Images = NDArray[np.uint8]


def exported_files(source: Source) -> dict[str, bytes]:
    """Return the network in every precision; how good random weights are in int8 does not matter here."""
    network, preprocessing = deployable(source.network), source.preprocessing
    samples = sample_pixels(preprocessing)
    graph = to_onnx(network, preprocessing, 1.0)
    ranges = Histograms(graph, tensors_to_watch(graph, Target.X86), samples).ranges("min-max")
    return {
        "fp32": serialise(graph),
        "fp16": serialise(to_onnx(to_half(network, preprocessing, samples), preprocessing, 1.0)),
        "int8": serialise(quantise(graph, ranges, Target.X86)),
    }


def stock_export(source: Source, example: torch.Tensor) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            source.network, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), dynamo=True, verbose=False
        )
    assert program is not None
    file = io.BytesIO()
    program.save(file)
    return file.getvalue()


def stock_session(content: bytes, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def contenders(
    source: Source, files: dict[str, bytes], stock: bytes, threads: int, compile_too: bool
) -> dict[str, Callable[[Images], Work]]:
    """Return name → what makes one run over a batch of images, uint8 (N, H, W, 3)."""
    normalize = Normalize(source.preprocessing)
    session = stock_session(stock, threads)
    name = session.get_inputs()[0].name

    def prepared(images: Images) -> torch.Tensor:
        return normalize(torch.from_numpy(images)).contiguous()

    def in_torch(network: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Images], Work]:
        def ready(images: Images) -> Work:
            ready_images = prepared(images)

            def work() -> object:
                torch.set_num_threads(threads)
                with torch.inference_mode():
                    return network(ready_images)

            return work

        return ready

    def in_stock(images: Images) -> Work:
        ready_images = prepared(images).numpy()
        return lambda: session.run(None, {name: ready_images})

    def in_ours(content: bytes) -> Callable[[Images], Work]:
        engine = Engine(content, providers="cpu", intra_op_threads=threads)
        return lambda images: lambda: engine.run(images)

    found = {"PyTorch eager": in_torch(source.network)}
    if compile_too:
        found["PyTorch compiled"] = in_torch(torch.compile(source.network, dynamic=False))
    found["stock export, ONNX Runtime"] = in_stock
    return found | {f"export-onnx {precision}": in_ours(content) for precision, content in files.items()}


def images_per_second(works: dict[str, Work], batch: int, seconds: float) -> dict[str, float]:
    """Return the median speed of each, over rounds in which they take turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
        work()
    for _ in range(ROUNDS):
        for name, work in works.items():
            until = time.perf_counter() + seconds / ROUNDS
            while True:
                started = time.perf_counter()
                work()
                ended = time.perf_counter()
                times[name].append(ended - started)
                if ended > until:
                    break
    return {name: batch / float(np.median(values)) for name, values in times.items()}


def tables(depth: int, seconds: float, compile_too: bool) -> Iterator[str]:
    source = from_random_weights(NetworkSpec(depth=depth), None, 0)
    files = exported_files(source)
    height, width = source.preprocessing.crop
    pixels = np.random.default_rng(0).integers(0, 256, (max(BATCHES), height, width, 3), dtype=np.uint8)
    stock = stock_export(source, Normalize(source.preprocessing)(torch.from_numpy(pixels[:2])))
    for threads in THREADS:
        makers = contenders(source, files, stock, threads, compile_too)
        speeds = {}
        for batch in BATCHES:
            sys.stderr.write(f"ResNet-{depth}, {threads} threads, batch {batch}\n")
            works = {name: make(pixels[:batch]) for name, make in makers.items()}
            speeds[batch] = images_per_second(works, batch, seconds)
        yield table(f"ResNet-{depth}, {width} pixels, {threads} thread{'s' * (threads > 1)}", list(makers), speeds)


def table(title: str, names: list[str], speeds: dict[int, dict[str, float]]) -> str:
    ratios = {
        "int8 : fp32": ("export-onnx int8", "export-onnx fp32"),
        "fp32 : stock export": ("export-onnx fp32", "stock export, ONNX Runtime"),
        "fp32 : PyTorch eager": ("export-onnx fp32", "PyTorch eager"),
    }
    lines = [
        f"### {title}",
        "",
        "| images/s at batch | " + " | ".join(map(str, speeds)) + " |",
        "|---" * (1 + len(speeds)) + "|",
    ]
    lines += [f"| {name} | " + " | ".join(f"{speeds[batch][name]:,.1f}" for batch in speeds) + " |" for name in names]
    for name, (one, other) in ratios.items():
        cells = (f"{speeds[batch][one] / speeds[batch][other]:.2f}" for batch in speeds)
        lines.append(f"| *{name}* | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def processor() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = next((line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")), "unknown")
    flags = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16") if f" {flag}" in text]
    return f"{name} ({', '.join(flags) or 'no vector flags known'})"


def heading(seconds: float) -> str:
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False).stdout
    return (
        "# Speed of exported files\n\n"
        f"Written by `python -m benchmarks.exported` at commit {commit.strip() or 'unknown'}, "
        f"{time.strftime('%Y-%m-%d', time.gmtime())}. {processor()}; Python {platform.python_version()}, "
        f"torch {torch.__version__}, ONNX Runtime {onnxruntime.__version__}. Medians over {seconds:g} s each, in "
        f"{ROUNDS} rounds that take turns. Random weights.\n"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description="Measure exported files.")
    arguments.add_argument("--networks", type=int, nargs="+", default=[20, 18, 50])
    arguments.add_argument("--seconds", type=float, default=5.0, help="for each figure")
    arguments.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    arguments.add_argument("--note", default="", help="a sentence for the top of the file")
    arguments.add_argument("--output", type=Path, default=OUTPUT)
    given = arguments.parse_args()
    compile_too = not given.no_compile and shutil.which("c++") is not None
    parts = [heading(given.seconds), *([f"{given.note}\n"] if given.note else [])]
    for depth in given.networks:
        for part in tables(depth, given.seconds, compile_too):
            sys.stdout.write(part + "\n")
            parts.append(part)
            given.output.write_text("\n".join(parts))
    sys.stderr.write(f"written to {given.output}\n")


if __name__ == "__main__":
    main()
