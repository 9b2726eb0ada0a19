"""Buffers for a GPU: pixels in its own memory, and page-locked host memory, which the GPU accesses directly.

The CUDA library that ONNX Runtime has loaded locks the pages. If that fails, pageable memory is used, which is slower.
"""

import contextlib
import ctypes
import math
import mmap
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.engine.onnx_runtime import DeviceValue, device_value

CUDA_LIBRARY = "libcudart.so.13"  # of ONNX Runtime's wheel; tests/gpu/test_wheel.py compares them


class CudaDevice:
    """The first GPU, as the memory of `GpuSessions`."""

    def images(self, shape: tuple[int, ...]) -> DeviceValue:
        """Return a buffer for uint8 pixels in the GPU's memory."""
        return device_value(shape, np.uint8)

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array of zeros, page-locked if possible during its lifetime."""
        memory = mmap.mmap(-1, max(1, math.prod(shape) * dtype.itemsize))  # page-aligned, and shares no page
        array = np.frombuffer(memory, dtype, count=math.prod(shape)).reshape(shape)
        _lock_pages(array, len(memory))
        return array


def _lock_pages(array: NDArray[Any], size: int) -> None:
    with contextlib.suppress(OSError):  # the library is missing
        library = ctypes.CDLL(CUDA_LIBRARY)
        address = ctypes.c_void_p(array.ctypes.data)
        if library.cudaHostRegister(address, ctypes.c_size_t(size), 0) == 0:
            weakref.finalize(array, library.cudaHostUnregister, address).atexit = False
        else:
            library.cudaGetLastError()  # clear the error, which ONNX Runtime would take for its own
