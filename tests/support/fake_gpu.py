"""A GPU that remembers what it was asked: it reads pixels from bound buffers and writes answers to bound addresses.

Each image's answer is the sum of its pixels, so that padding and mix-ups show.
"""

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 4
CLASSES = 3


@dataclass
class FakeNode:
    name: str
    shape: list[Any]


class FakeImages:
    """Pixels in the memory of the GPU that there is not."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.pixels = np.full(shape, 255, np.uint8)

    def update_inplace(self, images: NDArray[np.uint8]) -> None:
        assert images.shape == self.pixels.shape
        self.pixels[:] = images


@dataclass
class FakeDevice:
    """Counts the buffers that it was asked for."""

    buffers: list[tuple[int, ...]] = field(default_factory=list)

    def images(self, shape: tuple[int, ...]) -> FakeImages:
        self.buffers.append(shape)
        return FakeImages(shape)

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        self.buffers.append(shape)
        return np.zeros(shape, dtype)


class FakeBinding:
    """What one batch size reads and writes."""

    def __init__(self) -> None:
        self.images: FakeImages | None = None
        self.outputs: dict[str, tuple[list[int], int]] = {}

    def bind_ortvalue_input(self, name: str, value: FakeImages) -> None:
        assert name == "images"
        self.images = value

    def bind_output(self, name: str, device: str, number: int, kind: Any, shape: list[int], address: int) -> None:
        assert (device, number) == ("cpu", 0)
        self.outputs[name] = (shape, address)


class FakeSession:
    """Fails with `failures[n]` in its nth run; `memory` is the largest batch that it holds."""

    def __init__(self, memory: int = 1024) -> None:
        self.memory = memory
        self.batches: list[int] = []
        self.failures: list[str] = []
        self.bindings = 0

    def get_inputs(self) -> list[FakeNode]:
        return [FakeNode("images", ["N", SIDE, SIDE, 3])]

    def get_outputs(self) -> list[FakeNode]:
        return [FakeNode("probabilities", ["N", "unknown"]), FakeNode("top_indices", ["N", 2])]

    def run(self, outputs: list[str], feeds: dict[str, NDArray[np.uint8]]) -> list[NDArray[Any]]:
        return [_answer(name, feeds["images"]) for name in outputs]

    def io_binding(self) -> FakeBinding:
        self.bindings += 1
        return FakeBinding()

    def run_with_iobinding(self, binding: FakeBinding) -> None:
        assert binding.images is not None
        pixels = binding.images.pixels
        self.batches.append(len(pixels))
        if self.failures:
            raise RuntimeError(self.failures.pop(0))
        if len(pixels) > self.memory:
            raise RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 9")
        for name, (shape, address) in binding.outputs.items():
            answer = _answer(name, pixels)
            assert list(answer.shape) == shape
            ctypes.memmove(address, answer.ctypes.data, answer.nbytes)


def _answer(name: str, pixels: NDArray[np.uint8]) -> NDArray[Any]:
    sums = pixels.astype(np.int64).sum(axis=(1, 2, 3))
    if name == "probabilities":
        return np.repeat(sums[:, None], CLASSES, axis=1).astype(np.float32)
    return np.repeat(sums[:, None], 2, axis=1)
