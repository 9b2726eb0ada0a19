"""A model on the CPU: one session for concurrent requests, one for a single request, and one copy of the weights.

The first session runs each image on one thread, as many images at once as there are cores. The second uses all cores
for one image. Both map the weights of one optimised graph into memory, as do all other processes. The graph is made on
this host for its processor, from a model file that has its weights inside.
"""

import functools
import hashlib
import logging
import platform
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.onnx_runtime import GRAPH_FILE, Session, cannot_load, open_session, runtime_version
from service.engine.provider_options import INPUT
from service.system.cache import find_or_make, key_of
from service.system.malloc import trim

log = logging.getLogger(__name__)

_KIND = "graphs"
_PROCESSOR_FACTS = ("vendor_id", "model name", "flags", "CPU implementer", "CPU part", "Features")


class CpuSessions:
    """Sessions on the CPU. `run` may be called from several threads.

    Raises EngineError if the model cannot be loaded.
    """

    largest_batch: int | None = None

    def __init__(
        self, model: bytes, *, threads: int = 1, exclusive_threads: int | None = None, cache: Path | None = None
    ) -> None:
        sizes = [(threads, False)]
        if exclusive_threads is not None and exclusive_threads > threads:
            sizes.append((exclusive_threads, True))
        self.session, *others = _open_all(model, sizes, cache)
        self._all_cores = others[0] if others else None
        self._all_cores_are_free = threading.Lock()

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str], *, exclusive: bool = False) -> list[NDArray[Any]]:
        """Return the named outputs. With `exclusive`, no process runs another image."""
        if exclusive and self._all_cores is not None and self._all_cores_are_free.acquire(blocking=False):
            try:
                return list(self._all_cores.run(list(outputs), {INPUT: images}))
            finally:
                self._all_cores_are_free.release()
        return list(self.session.run(list(outputs), {INPUT: images}))


def _open_all(model: bytes, sizes: Sequence[tuple[int, bool]], cache: Path | None) -> list[Session]:
    """Return a session for each (threads, spinning). They share weights if the cache is writable."""
    failure: Exception | None = None
    if cache is not None:
        try:
            graph = find_or_make(cache, _KIND, _key(model), functools.partial(_save, model)) / GRAPH_FILE
            return [open_session(graph, threads=n, spinning=spins, optimised=False) for n, spins in sizes]
        except Exception as error:  # of the disk or of ONNX Runtime; they have no common base class
            failure = error
    try:
        sessions = [open_session(model, threads=n, spinning=spins) for n, spins in sizes]
    except Exception as error:
        raise cannot_load(error) from error
    if failure is not None:  # logged only once the model is known not to be the cause
        log.warning("%s cannot be used, so each session keeps its own weights: %s", cache, _in_one_line(failure))
    return sessions


def _save(model: bytes, folder: Path) -> None:
    open_session(model, save_in=folder)
    trim()  # else the process keeps 240 MB after optimising a ResNet-50


def _key(model: bytes) -> str:
    return key_of(model=hashlib.sha256(model).hexdigest(), runtime=runtime_version(), processor=processor())


def processor() -> str:
    """Return the processor's model and instructions, which determine the layout of the optimised graph."""
    try:
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    except OSError:
        lines = []
    facts = [" ".join(line.split()) for line in lines if line.startswith(_PROCESSOR_FACTS)]
    return "\n".join([platform.machine(), *facts])


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())
