"""The inputs and outputs of a graph: names, element types of the Open Inference Protocol, and shapes."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

# The protocol's name of an element type → NumPy's name, little-endian as on the wire.
DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
_FLOATS = {"float16": "FP16", "float": "FP32", "double": "FP64"}

OPEN = -1  # an axis of any length


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of a graph; open axes are -1."""

    name: str
    datatype: str
    shape: tuple[int, ...]

    @property
    def is_open(self) -> bool:
        """Whether an axis after the first can have any length."""
        return OPEN in self.shape[1:]

    @property
    def row_bytes(self) -> int:
        """The size of one element along the first axis; open axes count as 1."""
        return DTYPES[self.datatype].itemsize * math.prod(max(1, axis) for axis in self.shape[1:])

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether a tensor may have this shape."""
        return len(shape) == len(self.shape) and all(
            requested in (OPEN, given) for requested, given in zip(self.shape, shape, strict=True)
        )


def read_spec(node: Any) -> TensorSpec | None:
    """Return an input or output as ONNX Runtime reports it, or None if the protocol has no name for its type."""
    kind = str(node.type).removeprefix("tensor(").removesuffix(")")
    datatype = _FLOATS.get(kind, kind.upper())
    if datatype not in DTYPES:
        return None
    shape = tuple(axis if isinstance(axis, int) and axis >= 0 else OPEN for axis in node.shape)
    return TensorSpec(str(node.name), datatype, shape)
