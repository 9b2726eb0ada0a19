"""Long strings and long arrays of numbers of a JSON body, which are parsed in pieces and on demand.

A single call of a parser would hold the GIL, and so block the event loop, for a large part of a second, and create an
object for each number. A piece takes half a millisecond, and its numbers are stored in an array before the next piece.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import orjson

PIECE_BYTES = 32 * 1024
_COUNTED_BYTES = 256 * 1024  # counted at once, which limits the memory of counting
LARGEST_RANK = 16
_LONGEST_ESCAPE = 6
_HIGH_SURROGATE = re.compile(rb"[^\\]\\u[dD][89abAB]..")  # the half of a character
_SPACE = b" \t\r\n"
# Brackets and commas stay, all else is part of a value.
_KINDS = bytes(byte if byte in b"[]," else ord("0") for byte in range(256))
_BRACKETS_TO_SPACES = bytes.maketrans(b"[]", b"  ")


def count_of(byte: bytes, content: bytes, start: int = 0, end: int | None = None) -> int:
    """Return the number of occurrences of a byte. For a frequent byte it is ten times as fast as `bytes.count`."""
    values = np.frombuffer(content, np.uint8)[start:end]
    pieces = (values[at : at + _COUNTED_BYTES] for at in range(0, len(values), _COUNTED_BYTES))
    return sum(int(np.count_nonzero(piece == byte[0])) for piece in pieces)


@dataclass(slots=True, eq=False)
class LongText:
    """A string as its JSON text, without the quotation marks."""

    written: bytes

    def content(self) -> bytes:
        """Return the string in UTF-8. Raises ValueError for line ends and escapes that are invalid in JSON."""
        if b"\n" in self.written or b"\r" in self.written:
            raise ValueError("a line end in a string")
        if b"\\" not in self.written:
            return self.written
        return b"".join(orjson.loads(b'"%b"' % piece).encode() for piece in self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        start = 0
        while start < len(self.written):
            end = self._end_of_piece(start, start + PIECE_BYTES)
            yield self.written[start:end]
            start = end

    def _end_of_piece(self, start: int, end: int) -> int:
        """Return the last offset up to `end` that is not within a character or an escape."""
        if end >= len(self.written):
            return len(self.written)
        escape = self.written.rfind(b"\\", end - _LONGEST_ESCAPE, end)
        if escape >= 0:
            end = start + len(self.written[start : escape + 1].rstrip(b"\\"))
            if _HIGH_SURROGATE.fullmatch(self.written, end - _LONGEST_ESCAPE - 1, end):
                end -= _LONGEST_ESCAPE
        while end > start and self.written[end] & 0xC0 == 0x80:
            end -= 1
        if end <= start:
            raise ValueError("a piece of backslashes")
        return end


@dataclass(slots=True, eq=False)
class LongArray:
    """An array of numbers, flat or nested, as its JSON text: `content` from `start` to `end`."""

    content: bytes
    start: int
    end: int
    commas: int

    @property
    def count(self) -> int:
        """The number of its elements, if it is valid."""
        return self.commas + 1

    def check_nesting(self) -> None:
        """Raise ValueError unless it is flat, or nested so that all lists of a level have the same length."""
        first_is_last = self.content.find(b"]", self.start, self.end) == self.end - 1
        if first_is_last and self.content.find(b"[", self.start + 1, self.end) < 0:
            return
        if not _is_even(b",".join(_outline(piece) for piece in self._cut())):
            raise ValueError("lists of different lengths, or brackets that do not match")

    def pieces(self) -> Iterator[tuple[bytes, list[object]]]:
        """Yield its values in pieces, each with its text. Raises ValueError if it is not valid JSON."""
        for piece in self._cut():
            text = piece.translate(_BRACKETS_TO_SPACES) if b"[" in piece or b"]" in piece else piece
            yield text, orjson.loads(b"[%b]" % text)

    def _cut(self) -> Iterator[bytes]:
        """Yield its text in pieces, without the commas between them."""
        start = self.start
        while start < self.end:
            end = self.end
            if end - start > PIECE_BYTES:
                end = self.content.rfind(b",", start, start + PIECE_BYTES)
            if end < 0:
                raise ValueError("a value larger than a piece")
            yield self.content[start:end]
            start = end + 1


def _outline(piece: bytes) -> bytes:
    """Return the brackets and commas of a piece. Raises ValueError if a comma is missing between two values."""
    kinds = piece.translate(_KINDS, _SPACE)
    if b"0[" in kinds or b"]0" in kinds:
        raise ValueError("a bracket beside a number")
    return kinds.translate(None, b"0")


def _is_even(outline: bytes) -> bool:
    """Return whether brackets and commas form an array in which all lists of a level have the same length."""
    rank = len(outline) - len(outline.lstrip(b"["))
    if rank > LARGEST_RANK:
        return False
    end = outline.find(b"]") + 1
    block = outline[rank - 1 : end]
    for level in range(2, rank + 1):
        end = outline.find(b"]" * level, max(0, end - level + 1)) + level
        if not _repeats(outline, rank - level + 1, end - 1, block + b","):
            return False
        block = outline[rank - level : end]
    return end == len(outline)


def _repeats(outline: bytes, start: int, end: int, unit: bytes) -> bool:
    """Return whether a part consists of one or more repetitions of the unit, without the comma at its end."""
    units = unit * max(1, PIECE_BYTES // len(unit))
    return (end - start + 1) % len(unit) == 0 and all(
        outline[at : min(at + len(units), end)] == units[: end - at] for at in range(start, end, len(units))
    )
