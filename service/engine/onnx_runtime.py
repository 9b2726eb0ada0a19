"""ONNX Runtime: the only file that imports it. It opens sessions with the options that this service uses."""

import contextlib
import io
import logging
import os
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read at the import; the wheel enables telemetry by default
import numpy as np
import onnxruntime

from service.engine.provider_options import CPU, ENVIRONMENT

log = logging.getLogger(__name__)

Session: TypeAlias = onnxruntime.InferenceSession
DeviceValue: TypeAlias = onnxruntime.OrtValue

# A client that sends small images one by one sends the next one within 0.33 ms of a response. Threads that still spin
# then save 30 of 270 microseconds.
_SPINNING_US = 1000
# Of a saved graph: small constants stay in it, the weights lie beside it, where they can be mapped into memory.
GRAPH_FILE, WEIGHTS_FILE = "graph.onnx", "weights.bin"
_SMALL_CONSTANT_BYTES = "1024"
# Given bytes, ONNX Runtime looks for external data in the working folder; this one cannot exist.
_NO_FOLDER = os.devnull + "/no-external-data"

_DAMAGED = "ONNX Runtime cannot load the file; it may be truncated or damaged"
_UNKNOWN = (
    "the model uses an operator that ONNX Runtime does not have; the known domains are ai.onnx, ai.onnx.ml and "
    "com.microsoft, up to the versions that this runtime knows"
)
_WORDS_OF_UNKNOWN = ("is not a registered function/op", "No Op registered for")  # in messages of ONNX Runtime


class EngineError(Exception):
    """The model cannot be loaded with these options. The message is one line for an operator."""


def cannot_load(error: Exception) -> EngineError:
    """Return the fault of a model file that ONNX Runtime has failed to load."""
    return EngineError(_UNKNOWN if any(words in str(error) for words in _WORDS_OF_UNKNOWN) else _DAMAGED)


def runtime_version() -> str:
    """Return ONNX Runtime's version."""
    return str(onnxruntime.__version__)


def available_providers() -> list[str]:
    """Return the providers that this build of ONNX Runtime has; some may lack their device."""
    return list(onnxruntime.get_available_providers())


def check_one_runtime() -> None:
    """Raise EngineError if the CPU and the GPU build of ONNX Runtime are both installed: they share one folder."""
    if _is_installed("onnxruntime") and _is_installed("onnxruntime-gpu"):
        raise EngineError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other; uninstall both, then "
            "install this project with the extra `cpu` or the extra `gpu`"
        )


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def load_cuda_libraries() -> None:
    """Load CUDA and cuDNN from the packages beside ONNX Runtime; torch, which would load them, is absent."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    onnxruntime.set_default_logger_severity(4)  # failures are raised and logged with our own messages
    said = io.StringIO()
    with contextlib.redirect_stdout(said):  # it prints the libraries that it does not find
        onnxruntime.preload_dlls(directory="")
    if said.getvalue():
        log.warning("CUDA's libraries: %s", " ".join(said.getvalue().split()))


def open_session(
    model: bytes | Path,
    providers: Sequence[tuple[str, Mapping[str, str]]] = ((CPU, {}),),
    *,
    threads: int = 1,
    spinning: bool = False,
    optimised: bool = True,
    save_in: Path | None = None,
) -> Session:
    """Open a model file, or a graph that `save_in` made; raise the exceptions of ONNX Runtime.

    Spinning threads wait for work without sleeping during a run and for a moment after it. With `optimised=False` the
    graph is used as it is. `save_in` is a folder for the optimised graph, which is valid for this processor only.
    """
    options = _session_options(threads, spinning=spinning)
    if isinstance(model, bytes):
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FOLDER)
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if save_in is not None:
        _save_graph(options, save_in)
    return onnxruntime.InferenceSession(
        model, options, providers=[(name, dict(values)) for name, values in providers], enable_fallback=0
    )


def _session_options(threads: int, *, spinning: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # 0 would be the host's cores, not those of this container
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # failures are raised and logged with our own messages
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if spinning:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(_SPINNING_US))
    return options


def _save_graph(options: onnxruntime.SessionOptions, folder: Path) -> None:
    options.optimized_model_filepath = str(folder / GRAPH_FILE)
    entry = "session.optimized_model_external_initializers_"
    options.add_session_config_entry(f"{entry}file_name", WEIGHTS_FILE)
    options.add_session_config_entry(f"{entry}min_size_in_bytes", _SMALL_CONSTANT_BYTES)


def device_value(shape: tuple[int, ...], dtype: type[np.generic]) -> DeviceValue:
    """Return an uninitialised buffer in the GPU's memory, which can be bound as an input."""
    return onnxruntime.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, "cuda", 0)
