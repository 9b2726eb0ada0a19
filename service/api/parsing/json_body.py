"""JSON bodies of clients: limits are checked before parsing, and parsing in pieces keeps the event loop responsive.

A JSON parser needs up to 50 bytes of objects and 200 ns for each byte. Long strings and long arrays of numbers, the
bulk of a large body, are therefore extracted by their quotation marks and parsed separately (`long_values.py`). The
remainder is short in any valid request; its values are counted before it is parsed.
"""

import re
import secrets
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.api.parsing.long_values import LongArray, LongText, count_of
from service.api.parsing.short_json import NotJson, read_short_json
from service.errors import ServiceError, TooLarge

# A thousand images of 32 x 32 pixels have 3 million.
MOST_JSON_VALUES = 8_000_000
_SMALL_BYTES = 4 * 1024  # parsed as it is
_LONG_BYTES, _LEAST_LONG_BYTES = 8 * 1024, 256  # longer strings are extracted; the second value if there are many
_LONG_GAP_BYTES = 1024  # a gap between two strings that may contain an array of numbers
# Of the remainder after the extraction. A request may have 65,536 elements of BYTES.
_MOST_STRINGS, _MOST_LISTS, _MOST_OBJECTS, _MOST_VALUES = 70_000, 70_000, 4_096, 150_000
_MOST_ROWS = 2 * MOST_JSON_VALUES  # the lists of long arrays
_MOST_LEFT_BYTES = 24 * 1024 * 1024
# The size of each as a Python object, and the memory that all of them may take in addition to the body.
_STRING_BYTES, _LIST_BYTES, _OBJECT_BYTES, _VALUE_BYTES = 72, 100, 250, 32
_HUGE_NUMBER = re.compile(rb"[0-9]{4301}")  # parsing it takes 12 bytes a digit; Python has the same limit
_NUMBER_BYTES, _COPIES = 8, 2  # the largest size of a long array's number; copies of a body while it is read
_MOST_GROWTH, _FREE_BYTES = 8, 1024 * 1024

LongValue = LongText | LongArray


def read_json(content: bytes) -> Any:
    """Return the parsed body, with a LongText or LongArray in place of each long value.

    Long values are validated when they are read. Raises NotJson, BadRequest if the body is nested too deeply, TooLarge
    if it has too many values.
    """
    if len(content) <= _SMALL_BYTES:
        return read_short_json(content)
    left, long_values = _cut(content)
    _check_counts(left, len(content))
    document = read_short_json(left)
    return _restored(document, long_values) if long_values else document


def parsing_bytes(content: bytes, json_bytes: int | None = None) -> int:
    """Return the largest memory in bytes that parsing the JSON of a body takes in addition to the body."""
    size = len(content) if json_bytes is None else min(json_bytes, len(content))
    strings = min(count_of(b'"', content, 0, size) // 2, _MOST_STRINGS)
    values = min(count_of(b",", content, 0, size), MOST_JSON_VALUES)
    return _COPIES * size + _STRING_BYTES * strings + _NUMBER_BYTES * values


def _check_counts(left: bytes, whole_bytes: int) -> None:
    """Raise TooLarge if parsing the remainder of a body would take too much time or memory."""
    lists, objects, values = (count_of(byte, left) for byte in (b"[", b"{", b","))
    strings = count_of(b'"', left) // 2
    for count, most, name in (
        (lists, _MOST_LISTS, "lists"),
        (objects, _MOST_OBJECTS, "objects"),
        (values, _MOST_VALUES, "values beside long arrays of numbers"),
        (len(left), _MOST_LEFT_BYTES, "bytes beside long strings and long arrays of numbers"),
    ):
        if count > most:
            raise _too_many(most, name)
    if _HUGE_NUMBER.search(left):
        raise TooLarge("A number of the JSON has more than 4,300 digits; send a shorter one.")
    takes = _STRING_BYTES * strings + _LIST_BYTES * lists + _OBJECT_BYTES * objects + _VALUE_BYTES * values + len(left)
    if takes > _MOST_GROWTH * whole_bytes + _FREE_BYTES:
        raise TooLarge("The JSON has too many small values for its size; send several requests.")


def _too_many(most: int, name: str) -> ServiceError:
    return TooLarge(f"The JSON of a request may have at most {most:,} {name}; send several requests.")


def _quotes(content: bytes) -> NDArray[np.int64]:
    """Return the offsets of the quotation marks that begin and end strings. Raises NotJson, TooLarge."""
    if count_of(b'"', content) > 2 * _MOST_STRINGS:
        raise _too_many(_MOST_STRINGS, "strings")
    values = np.frombuffer(content, np.uint8)
    step = 1 << 18
    found = [np.flatnonzero(values[at : at + step] == ord('"')) + at for at in range(0, len(values), step)]
    places = np.concatenate(found) if found else np.empty(0, np.int64)
    escaped = np.flatnonzero(values[places - 1] == ord("\\")) if len(places) else places
    if len(escaped):
        places = np.delete(places, [at for at in escaped.tolist() if _is_escaped(content, places, at)])
    if len(places) % 2:
        raise NotJson
    return places


def _is_escaped(content: bytes, places: NDArray[np.int64], at: int) -> bool:
    """Return whether an odd number of backslashes precedes a quotation mark."""
    before = content[places[at - 1] + 1 if at else 0 : places[at]]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 1


def _cut(content: bytes) -> tuple[bytes, dict[str, LongValue]]:
    """Return the body with a marker in place of each long value, and the long values by their markers."""
    quotes = _quotes(content)
    longest = min(_LONG_BYTES, max(_LEAST_LONG_BYTES, _MOST_LEFT_BYTES // 2 // max(1, len(quotes))))
    edges = np.concatenate(([-1], quotes, [len(content)]))  # a gap, a string, a gap, …, a gap
    lengths = np.diff(edges) - 1
    limits = np.full(len(lengths), longest)
    limits[::2] = _LONG_GAP_BYTES
    marks = secrets.token_hex(8)  # random, so that no body can contain them
    chosen = np.flatnonzero(lengths > limits)
    left: list[bytes] = []
    long_values: dict[str, LongValue] = {}
    position = 0
    places = zip(chosen.tolist(), (edges[chosen] + 1).tolist(), edges[chosen + 1].tolist(), strict=True)
    for at, start, end in places:
        mark = f"{marks}{at}"
        if at % 2:
            long_values[mark] = LongText(content[start:end])
            left += (content[position:start], mark.encode())
            position = end
        elif (array := _array_in(content, start, end)) is not None:
            long_values[mark] = array
            left += (content[position : array.start], f'"{mark}"'.encode())
            position = array.end
    _check_values(long_values.values())
    return b"".join((*left, content[position:])), long_values


def _array_in(content: bytes, start: int, end: int) -> LongArray | None:
    """Return the array of two numbers or more between two strings, or None if there is none."""
    first = content.find(b"[", start, end)
    if first < 0:
        return None
    brace = content.find(b"}", first, end)  # the end of the object whose last value is the array
    last = content.rfind(b"]", first, end if brace < 0 else brace)
    brackets = [count_of(bracket, content, first, last + 1) for bracket in (b"[", b"]")]
    commas = count_of(b",", content, first, last + 1)
    if not commas or brackets[0] != brackets[1]:
        return None
    return LongArray(content, first, last + 1, commas)


def _check_values(long_values: Iterable[LongValue]) -> None:
    arrays = [value for value in long_values if isinstance(value, LongArray)]
    if sum(array.count for array in arrays) > MOST_JSON_VALUES:
        raise TooLarge(
            f"The JSON of a request may have at most {MOST_JSON_VALUES:,} values; send tensors as raw bytes."
        )
    if sum(count_of(b"[", array.content, array.start, array.end) for array in arrays) > _MOST_ROWS:
        raise _too_many(_MOST_ROWS, "lists of numbers")


def _restored(part: Any, long_values: dict[str, LongValue]) -> Any:
    """Return a part of the document with the markers replaced by the long values."""
    if isinstance(part, str):
        return long_values.get(part, part)
    if isinstance(part, list):
        return [_restored(entry, long_values) for entry in part]
    if isinstance(part, dict):
        return {name: _restored(value, long_values) for name, value in part.items()}
    return part
