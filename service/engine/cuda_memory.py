"""Buffers for a GPU: pixels in its own memory, and page-locked memory here, which it reads and writes by itself.

The CUDA library that ONNX Runtime has loaded locks the pages; where that fails, pageable memory is used, more slowly.
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

CUDA_LIBRARY = "libcudart.so.13"  # of ONNX Runtime's wheel: tests/gpu/test_wheel.py holds it to that


class CudaDevice:
    """The first GPU, as `GpuSessions` sees it."""

    def images(self, shape: tuple[int, ...]) -> DeviceValue:
        """Return a buffer for uint8 pixels in the GPU's memory."""
        return device_value(shape, np.uint8)

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return an array of zeros, page-locked if possible, for as long as it lives."""
        memory = mmap.mmap(-1, max(1, math.prod(shape) * dtype.itemsize))  # begins a page, and shares none
        array = np.frombuffer(memory, dtype, count=math.prod(shape)).reshape(shape)
        _lock_pages(array, len(memory))
        return array


def _lock_pages(array: NDArray[Any], size: int) -> None:
    with contextlib.suppress(OSError):  # no such library
        library = ctypes.CDLL(CUDA_LIBRARY)
        address = ctypes.c_void_p(array.ctypes.data)
        if library.cudaHostRegister(address, ctypes.c_size_t(size), 0) == 0:
            weakref.finalize(array, library.cudaHostUnregister, address).atexit = False
        else:
            library.cudaGetLastError()  # else ONNX Runtime would find it, and take it for its own
