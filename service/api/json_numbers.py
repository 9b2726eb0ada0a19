"""The numbers of JSON as arrays: what clients send is looser than a tensor, and NumPy takes more than it should."""

import contextlib
import math
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import BadRequest
from service.tensor_spec import DTYPES


def bad_tensor(message: str) -> BadRequest:
    """Return the refusal of a request whose tensors do not fit."""
    return BadRequest(message, code="bad_tensor")


def shaped(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an input's array in its shape. Raises BadRequest if there is none such."""
    try:
        return array.reshape(shape)
    except (ValueError, OverflowError):  # an empty tensor whose other axes are beyond all measure
        raise bad_tensor(f"`shape` of input `{name}` is too large.") from None


def flat(name: str, data: list[Any]) -> list[Any]:
    """Return the elements of `data`, which may be nested. Raises BadRequest if it is nested unevenly."""
    while set(map(type, data)) == {list}:
        if len(set(map(len, data))) > 1:
            raise bad_tensor(f"`data` of input `{name}` must be flat or nested evenly.")
        data = list(chain.from_iterable(data))
    return data


def numbers(name: str, datatype: str, shape: tuple[int, ...], data: list[Any]) -> NDArray[Any]:
    """Return `data` as an array of that type and shape. Raises BadRequest if it does not fit."""
    dtype = DTYPES[datatype]
    values = flat(name, data)
    types = set(map(type, values))
    if not types <= {int, float, bool}:  # before NumPy makes room for the longest text a number
        raise bad_tensor(
            f"`data` of input `{name}` does not fit {datatype}: it must be numbers, flat or nested evenly."
        )
    if len(values) != math.prod(shape):
        raise bad_tensor(
            f"Input `{name}` of shape {list(shape)} takes {math.prod(shape)} numbers, and has {len(values)}."
        )
    given = _array(values, types, dtype)
    kinds = {"f": "fiu", "b": "biu"}.get(dtype.kind, "iu")  # NumPy's letters for what may be given
    if given.size and given.dtype.kind not in kinds:
        raise bad_tensor(f"`data` of input `{name}` does not fit {datatype}.")
    if given.size and not _holds(dtype, given):
        raise bad_tensor(f"`data` of input `{name}` has numbers that {datatype} cannot hold.")
    return shaped(name, given.astype(dtype), shape)


def _array(values: list[Any], types: set[type], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return numbers in whatever type NumPy sees in them."""
    if not values:
        return np.empty(0, dtype)
    given = np.array(values)
    if given.dtype.kind == "f" and float not in types:  # whole numbers beyond those of INT64
        with contextlib.suppress(OverflowError):
            return np.array(values, np.uint64)
    return given


def _holds(dtype: np.dtype[Any], given: NDArray[Any]) -> bool:
    if dtype.kind == "f":
        return bool(np.abs(given).max() <= np.finfo(dtype).max)
    if dtype.kind == "b":
        return bool(given.min() >= 0 and given.max() <= 1)
    limits = np.iinfo(dtype)
    return bool(int(given.min()) >= limits.min and int(given.max()) <= limits.max)
