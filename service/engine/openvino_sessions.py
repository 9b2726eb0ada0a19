"""A model on the CPU with OpenVINO: the only file that imports it.

OpenVINO is an optional package (extra `openvino`). It has faster int8 kernels than ONNX Runtime, and can compute a fp32
model in bf16 where the processor has it. Each thread that runs a model has its own infer request, and all requests of a
compiled model share its weights. Outputs that no request names are not computed.
"""

import importlib.util
import io
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.engine.provider_options import INPUT
from service.model_files.confidence import ENERGY
from service.system.cache import private_folder

_KIND = "openvino"
_DEVICE = "CPU"
_PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
# These outputs cost almost nothing. A second compiled model, made when it is needed, has embeddings and class maps.
_USUAL_OUTPUTS = frozenset(("probabilities", "top_indices", ENERGY))

FloatPrecision = Literal["fp32", "bf16"]


def is_installed() -> bool:
    """Return whether the extra `openvino` is installed, without importing it."""
    return importlib.util.find_spec("openvino") is not None


def openvino_version() -> str:
    """Return OpenVINO's version. Raises PackageNotFoundError."""
    return version("openvino")


def has_bf16() -> bool:
    """Return whether the processor computes bf16."""
    return "BF16" in _core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")


class OpenVinoSessions:
    """Safe to `run` from several threads at once. Raises RuntimeError, OpenVINO's only error, if it cannot load."""

    largest_batch: int | None = None

    def __init__(
        self,
        model: bytes,
        *,
        threads: int = 1,
        exclusive_threads: int | None = None,
        precision: FloatPrecision = "fp32",
        cache: Path | None = None,
    ) -> None:
        """Compile `model` for images that run side by side on `threads` each, and for one on `exclusive_threads`.

        `precision` is that of the operators in floating point. `cache` keeps compiled models.
        """
        self._model = _core().read_model(io.BytesIO(model))
        self._names = frozenset(name for output in self._model.outputs for name in output.names)
        streams = max(1, (exclusive_threads or threads) // threads)
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": _PRECISIONS[precision], "ENABLE_CPU_PINNING": False}
        if cache is not None:
            options["CACHE_DIR"] = str(private_folder(cache, _KIND))
        many = {**options, "INFERENCE_NUM_THREADS": threads * streams, "NUM_STREAMS": streams}
        self._one = self._many = _Variants(self._model, many)
        if streams > 1:
            self._one = _Variants(
                self._model, {**options, "INFERENCE_NUM_THREADS": exclusive_threads, "NUM_STREAMS": 1}
            )
        self._all_cores_are_free = threading.Lock()

    def run(self, images: NDArray[np.uint8], outputs: Sequence[str], *, exclusive: bool = False) -> list[NDArray[Any]]:
        """Return the named outputs; with `exclusive`, no other image is being run in any process."""
        usual = _USUAL_OUTPUTS & self._names
        names = usual if usual.issuperset(outputs) else self._names
        if exclusive and self._one is not self._many and self._all_cores_are_free.acquire(blocking=False):
            try:
                return self._one.run(names, images, outputs)
            finally:
                self._all_cores_are_free.release()
        return self._many.run(names, images, outputs)


class _Requests(threading.local):
    """The infer requests of one thread, by set of outputs."""

    def __init__(self) -> None:
        self.of: dict[frozenset[str], Any] = {}


class _Variants:
    """A model compiled with the same options for several sets of outputs, each when it is first needed."""

    def __init__(self, model: Any, options: dict[str, Any]) -> None:
        self._model = model
        self._options = options
        self._compiled: dict[frozenset[str], Any] = {}
        self._lock = threading.Lock()
        self._requests = _Requests()

    def run(self, names: frozenset[str], images: NDArray[np.uint8], outputs: Sequence[str]) -> list[NDArray[Any]]:
        requests = self._requests.of
        request = requests.get(names)
        if request is None:
            request = requests[names] = self._compiled_for(names).create_infer_request()
        request.infer({INPUT: images}, share_inputs=True)
        return [np.array(request.get_tensor(name).data) for name in outputs]

    def _compiled_for(self, names: frozenset[str]) -> Any:
        with self._lock:
            if names not in self._compiled:
                self._compiled[names] = _core().compile_model(_with_outputs(self._model, names), _DEVICE, self._options)
            return self._compiled[names]


def _with_outputs(model: Any, names: Iterable[str]) -> Any:
    copy = model.clone()
    kept = set(names)
    for output in list(copy.outputs):
        if not kept & output.names:
            copy.remove_result(output.node)
    return copy


@cache
def _core() -> Any:
    import openvino  # takes 0.2 s, and may not be installed

    return openvino.Core()
