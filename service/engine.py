"""One ONNX Runtime session over one model file: which processor runs it, and arrays in, arrays out.

The only file that imports ONNX Runtime. It knows nothing of HTTP, labels or pictures: uint8 pixels go in as the model
file's contract says, arrays come out, and `provider` is what really runs, not what was asked for.
"""

import logging
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import EngineFailed

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # the wheel has it on, and reads this when it is imported
import onnxruntime

log = logging.getLogger(__name__)

INPUT = "images"
# Name → element type and number of axes. `images` is [N, height, width, 3].
_OUTPUTS = {
    "probabilities": ("tensor(float)", 2),
    "embedding": ("tensor(float)", 2),
    "top_indices": ("tensor(int64)", 2),
    "class_maps": ("tensor(float)", 4),
}

_TENSORRT, _CUDA, _CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"
# What is handed to ONNX Runtime to get each one: the first is wanted, the rest run what it cannot.
_FALLBACKS = {_TENSORRT: (_TENSORRT, _CUDA, _CPU), _CUDA: (_CUDA, _CPU), _CPU: (_CPU,)}
_CHOICES = {"auto": (_TENSORRT, _CUDA, _CPU), "tensorrt": (_TENSORRT,), "cuda": (_CUDA,), "cpu": (_CPU,)}
PROVIDER_CHOICES = tuple(_CHOICES)
# EXHAUSTIVE, the default, searches again for every new batch size: 634 ms against 1.9.
_PROVIDER_OPTIONS = {_CUDA: {"cudnn_conv_algo_search": "HEURISTIC"}}

# The key `location` of an external-data entry, as protobuf writes it.
_EXTERNAL_DATA = b"\x0a\x08location"
# Given bytes, ONNX Runtime looks for external data in the working folder; this one cannot exist.
_NO_FOLDER = os.devnull + "/no-external-data"


class EngineError(Exception):
    """The model cannot be loaded as asked. The message is one line for an operator."""


class Engine:
    """One ONNX Runtime session over one model file. Safe to `run` from several threads at once."""

    def __init__(self, model: bytes, *, providers: str = "auto", intra_op_threads: int = 1) -> None:
        if providers not in _CHOICES:
            raise ValueError(f"providers is {providers!r}, not one of {', '.join(_CHOICES)}")
        check_one_runtime()
        if _EXTERNAL_DATA in model:
            raise EngineError("the model keeps weights outside its file; export it again as a single file")
        self._session = _open_session(model, providers, intra_op_threads)
        self.provider: str = self._session.get_providers()[0]
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        self.input_height, self.input_width = _read_input_size(self._session)
        _check_outputs(self._session)

    def run(
        self, images: NDArray[np.uint8], outputs: Sequence[str] = ("probabilities", "top_indices")
    ) -> list[NDArray[Any]]:
        """Return the named outputs for images, uint8 (N, height, width, 3). Raises EngineFailed."""
        try:
            return list(self._session.run(list(outputs), {INPUT: images}))
        except Exception:  # ONNX Runtime has no closed list of failures, and they share no base class
            log.exception("inference failed on a batch of %d", len(images))
            raise EngineFailed("The model failed on this image; the server's log has the cause.") from None


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


def _open_session(model: bytes, providers: str, intra_op_threads: int) -> onnxruntime.InferenceSession:
    """Return a session that really runs on the first possible of the wanted providers."""
    available = onnxruntime.get_available_providers()
    wanted = [provider for provider in _CHOICES[providers] if provider in available]
    if not wanted:
        raise EngineError(f"this ONNX Runtime has no {providers} provider; it has {_names(available)}")
    if _CUDA in available:
        onnxruntime.preload_dlls(directory="")  # from the nvidia packages beside it, as there is no torch
    failures: list[str] = []  # told when it is clear that the model is not the reason
    for provider in wanted:
        session = _try_provider(model, provider, available, intra_op_threads, failures)
        if session is not None:
            break
    for failure in failures:
        log.warning("%s", failure)
    if session is not None:
        return session
    raise EngineError(f"the {providers} provider is installed, but cannot run here; are the driver and the GPU there?")


def _try_provider(
    model: bytes, provider: str, available: Sequence[str], threads: int, failures: list[str]
) -> onnxruntime.InferenceSession | None:
    chain = [(name, _PROVIDER_OPTIONS.get(name, {})) for name in _FALLBACKS[provider] if name in available]
    try:
        session = onnxruntime.InferenceSession(model, _session_options(threads), providers=chain, enable_fallback=0)
    except Exception as error:
        if provider == _CPU:
            raise EngineError(
                "the file is not a model that ONNX Runtime can load; it may be cut off or damaged"
            ) from error
        failures.append(f"{provider} could not load the model: {' '.join(str(error).split())}")
        return None
    if session.get_providers()[0] != provider:
        failures.append(f"{provider} is installed, but does not start here; are the driver and the GPU there?")
        return None
    return session


def _session_options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # 0 would be the host's cores, whatever this container was given
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # failures are raised, and told in our own words
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", _NO_FOLDER)
    return options


def _read_input_size(session: onnxruntime.InferenceSession) -> tuple[int, int]:
    inputs = session.get_inputs()
    if [(node.name, node.type) for node in inputs] != [(INPUT, "tensor(uint8)")]:
        found = ", ".join(f"{node.name} {node.type}" for node in inputs)
        raise EngineError(f"the model must have one input, `images` of uint8; it has {found or 'none'}")
    shape = list(inputs[0].shape)
    if len(shape) != 4 or isinstance(shape[0], int) or not all(isinstance(n, int) for n in shape[1:]) or shape[3] != 3:
        raise EngineError(f"`images` must be [N, height, width, 3] with only N open; the model has {shape}")
    return shape[1], shape[2]


def _check_outputs(session: onnxruntime.InferenceSession) -> None:
    found = {node.name: (node.type, len(node.shape)) for node in session.get_outputs()}
    for name, (kind, axes) in _OUTPUTS.items():
        if found.get(name) != (kind, axes):
            has = "no such output" if name not in found else "{} with {} axes".format(*found[name])
            raise EngineError(f"the model's output `{name}` must be {kind} with {axes} axes; the file has {has}")


def _names(providers: Sequence[str]) -> str:
    return ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
