"""The providers that may run a model here, best first: by choice, installed libraries and devices found."""

import functools
import logging

from service.engine.cuda_device import TENSORRT_LIBRARY, find_gpu, load_tensorrt
from service.engine.onnx_runtime import EngineError, available_providers, load_cuda_libraries
from service.engine.openvino_sessions import is_installed
from service.engine.provider_options import CHOICES, CPU, GPU_PROVIDERS, OPENVINO, TENSORRT

log = logging.getLogger(__name__)


def choose_providers(choice: str) -> list[str]:
    """Return the providers to try, in order, with their libraries loaded.

    Logs one line for each provider that `auto` cannot use. Raises EngineError if no provider of the choice can run
    here.
    """
    if choice == "openvino":
        return _openvino()
    available = available_providers()
    candidates = [provider for provider in CHOICES[choice] if provider in available]
    if not candidates:
        raise EngineError(
            f"this ONNX Runtime has no {choice} provider, it has {_names(available)}; install this project with the "
            "extra `gpu` in place of `cpu`, or choose --providers auto"
        )
    if candidates == [CPU]:
        return candidates
    if find_gpu() is None:
        if choice != "auto":
            raise EngineError(
                f"no CUDA device was found for --providers {choice}; are the driver and the GPU there? "
                "--providers auto falls back to the CPU"
            )
        log_once("no CUDA device was found: --providers auto falls back to the CPU")
        return [CPU]
    load_cuda_libraries()
    return _without_missing_tensorrt(candidates, choice)


def _openvino() -> list[str]:
    if not is_installed():
        raise EngineError(
            "OpenVINO is not installed; install this project with the extra `openvino`, or choose --providers auto"
        )
    return [OPENVINO]


def is_fallback(choice: str, provider: str) -> bool:
    """Return whether a model runs on the CPU although this ONNX Runtime has a GPU provider of the choice."""
    is_on_cpu = provider not in GPU_PROVIDERS
    return is_on_cpu and any(name in available_providers() for name in CHOICES[choice] if name in GPU_PROVIDERS)


def _without_missing_tensorrt(candidates: list[str], choice: str) -> list[str]:
    if TENSORRT not in candidates or load_tensorrt():
        return candidates
    if choice == "tensorrt":
        raise EngineError(
            f"TensorRT is not installed, {TENSORRT_LIBRARY} cannot be loaded; install the extra `tensorrt`, or choose "
            "--providers cuda"
        )
    log_once("TensorRT is not installed: --providers auto falls back to CUDA")
    return [provider for provider in candidates if provider != TENSORRT]


@functools.cache
def log_once(text: str) -> None:
    """Log a line once, for any number of models."""
    log.warning("%s", text)


def _names(providers: list[str]) -> str:
    return ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
