"""The GPU of this machine, found through the driver, so that its absence is one log line.

Only the driver's library is needed, neither CUDA nor ONNX Runtime. This module also loads TensorRT's libraries from the
folders of pip, where ONNX Runtime does not search.
"""

import contextlib
import ctypes
import importlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

_DRIVER = "libcuda.so.1"
TENSORRT_DISTRIBUTION = "tensorrt-cu13-libs"
# The major version that ONNX Runtime's wheel links; tests/gpu/test_wheel.py compares it with the wheel.
TENSORRT_LIBRARY = "libnvinfer.so.10"
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # of CUdevice_attribute
_NAME_BYTES = 256


@dataclass(frozen=True, slots=True)
class Gpu:
    """The first CUDA device, with the properties that a built engine depends on."""

    name: str
    compute_capability: str  # "9.0"


def find_gpu() -> Gpu | None:
    """Return the first CUDA device that this process may use; None without a device or a driver."""
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError:
        return None
    count = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return None
    return _describe(driver)


def _describe(driver: ctypes.CDLL) -> Gpu:
    name = ctypes.create_string_buffer(_NAME_BYTES)
    driver.cuDeviceGetName(name, _NAME_BYTES, 0)
    numbers = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        number = ctypes.c_int()
        driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, 0)
        numbers.append(str(number.value))
    return Gpu(name.value.decode(errors="replace"), ".".join(numbers))


def load_tensorrt() -> bool:
    """Load TensorRT's libraries into this process; return False if the ones that ONNX Runtime needs are missing."""
    with contextlib.suppress(ImportError):  # the system may have TensorRT
        importlib.import_module("tensorrt_libs")  # the wheel's package, which loads its libraries
    try:
        ctypes.CDLL(TENSORRT_LIBRARY, mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return False
    return True


def tensorrt_version() -> str:
    """Return the installed TensorRT's version, part of the key of its engines."""
    try:
        return version(TENSORRT_DISTRIBUTION)
    except PackageNotFoundError:
        return _ask_library()


def _ask_library() -> str:
    try:
        return str(ctypes.CDLL(TENSORRT_LIBRARY).getInferLibVersion())
    except (OSError, AttributeError):
        return "unknown"
