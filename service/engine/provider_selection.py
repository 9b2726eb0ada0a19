"""The providers that may run a model here, best first: by choice, installed libraries and devices found."""

import functools
import logging

from service.engine.cuda_device import TENSORRT_LIBRARY, find_gpu, load_tensorrt
from service.engine.onnx_runtime import EngineError, available_providers, load_cuda_libraries
from service.engine.provider_options import CHOICES, CPU, TENSORRT

log = logging.getLogger(__name__)


def choose_providers(choice: str) -> list[str]:
    """Return the providers to try, in order, with their libraries loaded. What `auto` cannot use, it says in one line.

    Raises EngineError if no provider of the choice can run here.
    """
    available = available_providers()
    wanted = [provider for provider in CHOICES[choice] if provider in available]
    if not wanted:
        raise EngineError(
            f"this ONNX Runtime has no {choice} provider, it has {_names(available)}; install this project with the "
            "extra `gpu` in place of `cpu`, or choose --providers auto"
        )
    if wanted == [CPU]:
        return wanted
    if find_gpu() is None:
        if choice != "auto":
            raise EngineError(
                f"no CUDA device was found for --providers {choice}; are the driver and the GPU there? "
                "--providers auto falls back to the CPU"
            )
        say_once("no CUDA device was found: --providers auto falls back to the CPU")
        return [CPU]
    load_cuda_libraries()
    return _without_missing_tensorrt(wanted, choice)


def is_fallback(choice: str, provider: str) -> bool:
    """Return whether a model runs on the CPU although this ONNX Runtime has a GPU provider of the choice."""
    return provider == CPU and any(name in available_providers() for name in CHOICES[choice] if name != CPU)


def _without_missing_tensorrt(wanted: list[str], choice: str) -> list[str]:
    if TENSORRT not in wanted or load_tensorrt():
        return wanted
    if choice == "tensorrt":
        raise EngineError(
            f"TensorRT is not installed, {TENSORRT_LIBRARY} cannot be loaded; install the extra `tensorrt`, or choose "
            "--providers cuda"
        )
    say_once("TensorRT is not installed: --providers auto falls back to CUDA")
    return [provider for provider in wanted if provider != TENSORRT]


@functools.cache
def say_once(text: str) -> None:
    """Log a line, however many models it holds for."""
    log.warning("%s", text)


def _names(providers: list[str]) -> str:
    return ", ".join(name.removesuffix("ExecutionProvider") for name in providers)
