"""The numbers of JSON as arrays: what clients send is looser than a tensor, and NumPy takes more than it should."""

import math
import struct
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.api.parsing.long_values import LongArray
from service.errors import BadRequest
from service.model_files.tensor_spec import DTYPES

_LOWER_CASE = 0x20
_FEW = 8  # whole numbers for each
_PACKED = {"q": np.int64, "Q": np.uint64, "d": np.float64}  # as `struct` names them


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
            raise _uneven(name)
        data = list(chain.from_iterable(data))
    return data


def numbers(name: str, datatype: str, shape: tuple[int, ...], data: list[Any] | LongArray) -> NDArray[Any]:
    """Return `data` as an array of that type and shape. Raises BadRequest if it does not fit."""
    if isinstance(data, LongArray):
        return shaped(name, _long(name, datatype, shape, data), shape)
    values = flat(name, data)
    types = set(map(type, values))
    if not types <= {int, float, bool}:
        raise _misfit(name, datatype)
    _check_count(name, shape, len(values))
    given = _array(name, datatype, values, has_bools=bool in types)
    return shaped(name, given.astype(DTYPES[datatype]), shape)


def _long(name: str, datatype: str, shape: tuple[int, ...], data: LongArray) -> NDArray[Any]:
    """Return the numbers of an array that would take too much as a list."""
    _check_count(name, shape, data.count)
    try:
        data.check_nesting()
    except ValueError:
        raise _uneven(name) from None
    array, position = np.empty(data.count, DTYPES[datatype]), 0
    try:
        for text, values in data.pieces():
            given = _array(name, datatype, values, text=text, has_bools=b"t" in text or b"f" in text)
            array[position : position + len(given)] = given
            position += len(given)
    except ValueError:
        raise _misfit(name, datatype) from None
    if position < len(array):
        raise _misfit(name, datatype)
    return array


def _array(
    name: str, datatype: str, values: list[Any], *, text: bytes = b"", has_bools: bool
) -> NDArray[np.int64 | np.uint64 | np.float64]:
    """Return numbers in a type that holds what they are, if the tensor's type holds them, too. Raises BadRequest.

    `text` is what they were written as, where it is worth a look.
    """
    dtype = DTYPES[datatype]
    if has_bools and dtype.kind != "b":
        raise _misfit(name, datatype)
    given = _with_few_fractions(values, text) if dtype.kind == "f" and text else None
    if given is None:
        given = _packed(values, {"f": "qQd", "b": "q"}.get(dtype.kind, "qQ"))
    if given is None:
        raise _misfit(name, datatype)
    if given.size and not _holds(dtype, given):
        raise bad_tensor(f"`data` of input `{name}` has numbers that {datatype} cannot hold.")
    return given


def _packed(values: list[Any], letters: str) -> NDArray[Any] | None:
    """Return numbers in the first of these types that holds them all, three times as fast as NumPy."""
    for letter in letters:
        try:
            return np.frombuffer(struct.pack(f"{len(values)}{letter}", *values), _PACKED[letter])
        except struct.error:
            continue
    return None


def _with_few_fractions(values: list[Any], text: bytes) -> NDArray[np.float64] | None:
    """Return FP64 of whole numbers with a few fractions between them, or None if these numbers are others.

    A whole number costs three times as much as a fraction to become one, so it becomes INT64 first.
    """
    if b"." not in text and b"e" not in text and b"E" not in text:
        return None
    letters = np.frombuffer(text, np.uint8)
    marks = np.flatnonzero((letters == ord(".")) | (letters | _LOWER_CASE == ord("e")))
    if len(marks) * _FEW > len(values):
        return None
    places = np.unique(np.searchsorted(np.flatnonzero(letters == ord(",")), marks)).tolist()
    fractions = [values[place] for place in places]
    for place in places:
        values[place] = 0
    whole = _packed(values, "qQd")
    if whole is None:
        return None
    array = whole.astype(np.float64)
    array[places] = fractions
    return array


def _check_count(name: str, shape: tuple[int, ...], count: int) -> None:
    if count != math.prod(shape):
        raise bad_tensor(f"Input `{name}` of shape {list(shape)} takes {math.prod(shape)} numbers, and has {count}.")


def _misfit(name: str, datatype: str) -> BadRequest:
    return bad_tensor(f"`data` of input `{name}` does not fit {datatype}: it must be numbers, flat or nested evenly.")


def _uneven(name: str) -> BadRequest:
    return bad_tensor(f"`data` of input `{name}` must be flat or nested evenly.")


def _holds(dtype: np.dtype[Any], given: NDArray[Any]) -> bool:
    if dtype.kind == "f":
        return bool(np.abs(given).max() <= np.finfo(dtype).max)
    if dtype.kind == "b":
        return bool(given.min() >= 0 and given.max() <= 1)
    limits = np.iinfo(dtype)
    return bool(int(given.min()) >= limits.min and int(given.max()) <= limits.max)
