"""Runs a model on CUDA, spoils the context with a kernel that writes to address zero, and runs the model again."""

import ctypes
import os
import sys
from pathlib import Path

import numpy as np

from service.engine.engine import DEVICE_LOST_STATUS, Engine, EngineOptions
from service.errors import EngineFailed

KERNEL = b"""
.version 7.0
.target sm_52
.address_size 64
.visible .entry spoil()
{
    .reg .b64 %address;
    .reg .b32 %value;
    mov.u64 %address, 0;
    mov.u32 %value, 1;
    st.global.u32 [%address], %value;
    ret;
}
"""


def spoil() -> None:
    """Launch the kernel in the context that ONNX Runtime uses, the device's primary one."""
    driver = ctypes.CDLL("libcuda.so.1")
    context, module, function = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
    assert driver.cuCtxSetCurrent(context) == 0
    assert driver.cuModuleLoadData(ctypes.byref(module), KERNEL) == 0
    assert driver.cuModuleGetFunction(ctypes.byref(function), module, b"spoil") == 0
    assert driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, None, None, None) == 0
    assert driver.cuCtxSynchronize() != 0


def main() -> None:
    images = np.zeros((1, 32, 32, 3), np.uint8)
    host = EngineOptions(on_device_lost=lambda: os._exit(DEVICE_LOST_STATUS))
    engine = Engine(Path(sys.argv[1]).read_bytes(), providers="cuda", host=host)
    engine.run(images)
    spoil()
    try:
        engine.run(images)
    except EngineFailed:
        sys.exit("the engine took it for a failure like any other")


if __name__ == "__main__":
    main()
