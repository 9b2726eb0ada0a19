"""The faster of two engines for a model on a CPU, measured once for each file, processor and version, and kept.

`--providers auto` takes OpenVINO where it is installed only if it computes 1.1 times as many images a second as ONNX
Runtime in each of three rounds, and if its outputs agree. The choice is kept in the cache, so all processes and later
starts have the same one.
"""

import functools
import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine import openvino_sessions
from service.engine.cpu import processor
from service.engine.onnx_runtime import runtime_version
from service.engine.provider_options import CPU, OPENVINO
from service.model_files.card import golden_input
from service.system.cache import find_or_make, key_of

log = logging.getLogger(__name__)

_KIND = "engine-choices"
_FILE = "choice.json"
_ROUNDS, _TURN_S = 3, 0.1
_FASTER = 1.1  # a gain below it is not worth another library in the process
_BATCHES = (1, 8)  # a lone image, and one of a loaded server; larger batches change the ratio by a few percent
_SAMPLES = 16
_OUTPUTS = ("probabilities", "top_indices")
# The largest difference in probability by precision, and the lead with which a first label has to be the same.
_TOLERANCE, _CLEAR_LEAD = {"fp32": 1e-3, "bf16": 0.05, "int8": 0.05}, 0.1


class Sessions(Protocol):
    """The sessions of an engine."""

    def run(
        self, images: NDArray[np.uint8], outputs: Sequence[str], *, exclusive: bool = False
    ) -> list[NDArray[Any]]: ...


def faster_engine(
    model: bytes,
    open_engine: Callable[[str], Sessions],
    *,
    size: tuple[int, int],
    precision: str,
    callers: int,
    cache: Path | None,
) -> str:
    """Return the provider to use, CPU or OPENVINO.

    `open_engine` opens the sessions of a provider. `size` is height and width of an image in pixels; `callers` is the
    number of threads that run the model at the same time. `precision` is that of OpenVINO's computation.
    Without a usable cache nothing is measured, and the result is CPU.
    """
    if cache is None or not openvino_sessions.is_installed():
        return CPU
    parts = {
        "model": hashlib.sha256(model).hexdigest(),
        "processor": processor(),
        "onnxruntime": runtime_version(),
        "openvino": openvino_sessions.openvino_version(),
        "precision": precision,
        "callers": str(callers),
    }
    measure = functools.partial(_measure, open_engine=open_engine, size=size, precision=precision, callers=callers)
    try:
        entry = find_or_make(cache, _KIND, key_of(**parts), measure)
        chosen = json.loads((entry / _FILE).read_text())
    except Exception as error:  # the disk's, OpenVINO's or ONNX Runtime's, which share no base class
        log.warning("OpenVINO is not used, as it could not be measured: %s", " ".join(str(error).split()))
        return CPU
    log.info("the model runs on %s: OpenVINO is %s", chosen["provider"], chosen["reason"])
    return OPENVINO if chosen["provider"] == OPENVINO else CPU


def _measure(
    folder: Path,
    *,
    open_engine: Callable[[str], Sessions],
    size: tuple[int, int],
    precision: str,
    callers: int,
) -> None:
    ours, other = open_engine(CPU), open_engine(OPENVINO)
    disagreement = disagreement_of(ours, other, size, _TOLERANCE[precision])
    ratios = [] if disagreement else [_ratio(ours, other, size, callers) for _ in range(_ROUNDS)]
    choice = {
        "provider": OPENVINO if ratios and min(ratios) >= _FASTER else CPU,
        "ratios": ratios,
        "reason": disagreement or f"{', '.join(f'{ratio:.2f}' for ratio in ratios)} times as fast as ONNX Runtime",
    }
    (folder / _FILE).write_text(json.dumps(choice))


def disagreement_of(first: Sessions, second: Sessions, size: tuple[int, int], tolerance: float) -> str | None:
    """Return how the outputs of two engines differ on sample images; None if they agree within `tolerance`."""
    images = sample_images(*size)
    expected, found = (sessions.run(images, _OUTPUTS)[0] for sessions in (first, second))
    difference = float(np.abs(expected - found).max())
    if not difference <= tolerance:  # also when it is not a number
        return f"off by {difference:.2g} in probability, more than {tolerance:g}"
    leads = np.sort(expected, axis=1)
    is_clear = leads[:, -1] - leads[:, -2] > _CLEAR_LEAD
    if (expected.argmax(1) != found.argmax(1))[is_clear].any():
        return "different in the first label of a sample image"
    return None


def sample_images(height: int, width: int) -> NDArray[np.uint8]:
    """Return the golden image and images of random coloured areas, uint8 (16, height, width, 3), always the same."""
    coarse = np.random.default_rng(0).integers(0, 256, (_SAMPLES - 1, 4, 4, 3), dtype=np.uint8)
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return np.concatenate([golden_input(height, width), coarse[:, rows][:, :, columns]])


def _ratio(ours: Sessions, other: Sessions, size: tuple[int, int], callers: int) -> float:
    """Return how many times as many images the other engine computes, over batches of all sizes."""

    def seconds(sessions: Sessions) -> float:
        return sum(_seconds_an_image(sessions, size, batch, callers) for batch in _BATCHES)

    return seconds(ours) / seconds(other)


def _seconds_an_image(sessions: Sessions, size: tuple[int, int], batch: int, callers: int) -> float:
    images = np.ascontiguousarray(np.resize(sample_images(*size), (batch, *size, 3)))
    sessions.run(images, _OUTPUTS)
    ends = time.perf_counter() + _TURN_S
    counts = [0] * callers

    def call(number: int) -> None:
        while True:
            sessions.run(images, _OUTPUTS)
            counts[number] += batch
            if time.perf_counter() >= ends:
                return

    started = time.perf_counter()
    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - started) / sum(counts)
