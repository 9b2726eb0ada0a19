"""One model file, ready to run: the choice of a provider, and arrays in, arrays out.

It does not depend on HTTP, labels or image files: the input is uint8 pixels by the interface of the model file.
`provider` is the provider in use, which may differ from the requested one. `cpu.py` and `gpu.py` have the sessions of
each processor.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine.cpu import CpuSessions
from service.engine.engine_choice import faster_engine
from service.engine.gpu import DeviceLost
from service.engine.gpu_loading import open_gpu
from service.engine.model_interface import ModelInterface, read_interface
from service.engine.onnx_runtime import EngineError, cannot_load, check_one_runtime, open_session
from service.engine.openvino_sessions import FloatPrecision, OpenVinoSessions, has_bf16, is_installed
from service.engine.provider_options import CHOICES, CPU, LARGEST_GPU_BATCH, OPENVINO
from service.engine.provider_selection import choose_providers
from service.engine.tensorrt_cache import Report, ignore_report
from service.errors import EngineFailed
from service.model_files.card import BadCard, read_card

__all__ = ["DEVICE_LOST_STATUS", "Engine", "EngineError", "EngineOptions", "check_one_runtime"]

log = logging.getLogger(__name__)

DEVICE_LOST_STATUS = 70  # exit status of a process whose GPU does not respond: restart it

# The key `location` of an external-data entry, as protobuf writes it.
_EXTERNAL_DATA = b"\x0a\x08location"


class _Sessions(Protocol):
    @property
    def largest_batch(self) -> int | None: ...

    def run(
        self, images: NDArray[np.uint8], outputs: Sequence[str], *, exclusive: bool = False
    ) -> list[NDArray[Any]]: ...


@dataclass(frozen=True, slots=True)
class _Opened:
    sessions: _Sessions
    provider: str
    interface: ModelInterface
    precision: str | None = None  # if it differs from that of the file


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Threads, cache and callbacks of a model. The defaults suit a program that runs one model once."""

    exclusive_threads: int | None = None  # for a single image on an idle machine; None: as for the others
    cache: Path | None = (
        None  # folder of files made for this host; None: weights are not shared, engines are built at each start
    )
    largest_gpu_batch: int = LARGEST_GPU_BATCH
    report: Report = ignore_report  # receives long activities while a model is loaded
    on_device_lost: Callable[[], None] = lambda: None  # called when the GPU does not respond to this process any more
    allow_bf16: bool = False  # OpenVINO may compute fp32 models in bf16 where the processor has it


_PLAIN_HOST = EngineOptions()


class Engine:
    """A model on the best available provider, on a GPU warmed up. `run` may be called from several threads.

    Raises EngineError if the model cannot be loaded with these options.
    """

    def __init__(
        self, model: bytes, *, providers: str = "auto", intra_op_threads: int = 1, host: EngineOptions = _PLAIN_HOST
    ) -> None:
        if providers not in CHOICES:
            raise ValueError(f"providers is {providers!r}, not one of {', '.join(CHOICES)}")
        check_one_runtime()
        check_single_file(model)
        opened = _open_first_possible(model, providers, intra_op_threads, host)
        self._sessions = opened.sessions
        self._on_device_lost = host.on_device_lost
        self.provider: str = opened.provider
        self.precision: str | None = opened.precision  # of the computation, if it differs from that of the file
        self.metadata: dict[str, str] = opened.interface.metadata
        self.outputs = opened.interface.outputs
        self.input_height, self.input_width = opened.interface.height, opened.interface.width

    @property
    def largest_batch(self) -> int | None:
        """The largest batch that is run in one piece; None without a limit."""
        return self._sessions.largest_batch

    def run(
        self,
        images: NDArray[np.uint8],
        outputs: Sequence[str] = ("probabilities", "top_indices"),
        *,
        exclusive: bool = False,
    ) -> list[NDArray[Any]]:
        """Return the named outputs for images, uint8 (N, height, width, 3). Raises EngineFailed.

        With `exclusive`, no process of this machine has another run in progress, so this one may use all cores.
        """
        try:
            return self._sessions.run(images, outputs, exclusive=exclusive)
        except DeviceLost:
            log.critical("the GPU does not respond to this process any more", exc_info=True)
            self._on_device_lost()
        except Exception:  # ONNX Runtime's exceptions have no common base class and no closed list
            log.exception("inference failed on a batch of %d", len(images))
        raise EngineFailed("The model failed on this image; the server's log has the cause.")


def check_single_file(model: bytes) -> None:
    """Raise EngineError if a model keeps weights outside its file."""
    if _EXTERNAL_DATA in model:
        raise EngineError("the model keeps weights outside its file; export it again as a single file")


def _open_first_possible(model: bytes, providers: str, threads: int, host: EngineOptions) -> _Opened:
    failures: list[str] = []
    for provider in choose_providers(providers):
        if provider == OPENVINO:
            opened: _Opened | None = _open_openvino(model, _interface_of(model), threads, host)
        elif provider == CPU and providers == "auto":
            opened = _open_faster(model, threads, host)
        else:
            opened = _open_cpu(model, threads, host) if provider == CPU else _try_gpu(model, provider, host, failures)
        if opened is not None:
            break
    for failure in failures:  # logged only once the model is known not to be the cause
        log.warning("%s", failure)
    if opened is None:
        raise EngineError(
            f"the {providers} provider is installed, but cannot run this model here; see the log for the cause"
        )
    return opened


def _open_cpu(model: bytes, threads: int, host: EngineOptions) -> _Opened:
    sessions = CpuSessions(model, threads=threads, exclusive_threads=host.exclusive_threads, cache=host.cache)
    return _Opened(sessions, sessions.session.get_providers()[0], read_interface(sessions.session))


def _open_openvino(model: bytes, interface: ModelInterface, threads: int, host: EngineOptions) -> _Opened:
    precision = _float_precision(interface, host)
    try:
        sessions = OpenVinoSessions(
            model, threads=threads, exclusive_threads=host.exclusive_threads, precision=precision, cache=host.cache
        )
    except Exception as error:  # OpenVINO raises RuntimeError for everything, and the disk has its own
        raise EngineError(f"OpenVINO cannot load the model: {' '.join(str(error).split())}") from error
    return _Opened(sessions, OPENVINO, interface, precision if precision != "fp32" else None)


def _open_faster(model: bytes, threads: int, host: EngineOptions) -> _Opened:
    """Open the model with ONNX Runtime, or with OpenVINO where it is installed and was measured to be faster."""
    if not is_installed():
        return _open_cpu(model, threads, host)
    interface = _interface_of(model)

    def open_engine(provider: str) -> _Opened:
        if provider == CPU:
            return _open_cpu(model, threads, host)
        return _open_openvino(model, interface, threads, host)

    is_bf16 = _float_precision(interface, host) == "bf16"
    chosen = faster_engine(
        model,
        lambda provider: open_engine(provider).sessions,
        size=(interface.height, interface.width),
        precision="bf16" if is_bf16 else _file_precision(interface),
        callers=max(1, (host.exclusive_threads or 1) // threads),
        cache=host.cache,
    )
    return open_engine(chosen)


def _file_precision(interface: ModelInterface) -> str:
    try:
        return read_card(interface.metadata).precision
    except BadCard:
        return "fp32"


def _float_precision(interface: ModelInterface, host: EngineOptions) -> FloatPrecision:
    is_allowed = host.allow_bf16 and _file_precision(interface) == "fp32"
    return "bf16" if is_allowed and has_bf16() else "fp32"


def _try_gpu(model: bytes, provider: str, host: EngineOptions, failures: list[str]) -> _Opened | None:
    interface = _interface_of(model)
    try:
        sessions = open_gpu(
            model, provider, interface, largest_batch=host.largest_gpu_batch, cache=host.cache, report=host.report
        )
    except Exception as error:
        failures.append(f"{provider} could not load the model: {' '.join(str(error).split())}")
        return None
    return _Opened(sessions, provider, interface)


def _interface_of(model: bytes) -> ModelInterface:
    """Read the file on the CPU, so that a later failure on another provider is not a fault of the file."""
    try:
        return read_interface(open_session(model, optimised=False))
    except EngineError:
        raise
    except Exception as error:
        raise cannot_load(error) from error
