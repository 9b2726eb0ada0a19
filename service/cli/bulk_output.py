"""The JSON Lines file of a bulk classification: whole lines only, and the ids that it already has.

The lines have the order of the input. A resumed run therefore compares ids one by one and stores none. If the input has
changed, it stores the remaining ids as 16-byte digests: 32 MB for 2 million.
"""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.cli.bulk_inputs import BulkError

_SYNC_S = 1.0
_BLOCK_BYTES = 65_536
_DIGEST_BYTES = 16


class AnswersFile:
    """A file of rows, opened for one run. Raises BulkError if it cannot be opened, or another run writes to it."""

    def __init__(self, path: Path, *, resume: bool, model: str) -> None:
        """`model` is `name:version`; all rows of a resumed file must be of this model."""
        self._path = path
        self._file = _open(path, resume=resume)
        try:
            self._size = self._cut_incomplete_line()
            self.written = WrittenIds(path, self._size, model)
        except OSError as error:
            os.close(self._file)
            raise _failed(path, error) from None
        self._synced_at = time.monotonic()
        self._is_dirty = False

    def append(self, lines: bytes) -> None:
        """Append whole lines. If the disk is full, removes an incomplete line and raises BulkError."""
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise _failed(self._path, error) from None
        self._size += len(lines)
        self._is_dirty = True
        self.sync_if_due()

    def sync_if_due(self) -> None:
        """Write the lines to the disk if the last time was at least a second ago. Raises BulkError."""
        if self._is_dirty and time.monotonic() - self._synced_at >= _SYNC_S:
            self._sync()

    def close(self) -> None:
        """Write the last lines to the disk. Raises BulkError."""
        try:
            self._sync()
        finally:
            os.close(self._file)

    def _sync(self) -> None:
        try:
            os.fsync(self._file)
        except OSError as error:
            raise _failed(self._path, error) from None
        self._is_dirty = False
        self._synced_at = time.monotonic()

    def _cut_incomplete_line(self) -> int:
        """Remove an incomplete last line; return the size of the file in bytes."""
        end = os.fstat(self._file).st_size
        while end > 0:
            start = max(0, end - _BLOCK_BYTES)
            found = os.pread(self._file, end - start, start).rfind(b"\n")
            if found >= 0:
                end = start + found + 1
                break
            end = start
        os.ftruncate(self._file, end)
        return end


class WrittenIds:
    """The ids of the rows in a file, for a run that passes the ids of its input once, in order."""

    def __init__(self, path: Path, size: int, model: str) -> None:
        self._path = path
        self._model = model
        self._ids = self._read(size)
        self._others: NDArray[np.bytes_] | None = None  # sorted digests, if the input has changed

    def take(self, item_id: str) -> bool:
        """Return whether the next id of the input has a row. Raises BulkError if a line of the file is not a row."""
        if self._others is None:
            expected = next(self._ids, None)
            if expected is None or expected == item_id:
                return expected is not None
            self._others = _sorted_digests(expected, self._ids)
        digest = np.bytes_(_digest(item_id))
        place = int(np.searchsorted(self._others, digest))
        return place < len(self._others) and self._others[place] == digest

    def _read(self, size: int) -> Iterator[str]:
        """Yield the ids of the rows that are in the file now; rows that are appended later are excluded."""
        with self._path.open("rb") as file:
            number = 0
            while file.tell() < size:
                number += 1
                row = _row(file.readline())
                if row is None:
                    raise BulkError(
                        f"line {number} of {self._path} is not a row of this command; write to another file"
                    )
                if row.get("model", self._model) != self._model:
                    raise BulkError(
                        f"{self._path} has answers of {row['model']}, and the model is now {self._model}; "
                        f"choose --model {row['model']}, or write to another file"
                    )
                yield row["id"]


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("id"), str) else None


def _sorted_digests(first: str, others: Iterator[str]) -> NDArray[np.bytes_]:
    digests = bytearray(_digest(first))
    for other in others:
        digests += _digest(other)
    found: NDArray[np.bytes_] = np.frombuffer(digests, dtype=f"S{_DIGEST_BYTES}")
    found.sort()
    return found


def _digest(item_id: str) -> bytes:
    return blake2b(item_id.encode(), digest_size=_DIGEST_BYTES - 1).digest() + b"\xff"  # NumPy strips zeros at the end


def _open(path: Path, *, resume: bool) -> int:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | (0 if resume else os.O_EXCL), 0o666)
    except FileExistsError:
        raise BulkError(f"{path} exists; continue it with --resume, or write to another file") from None
    except OSError as error:
        raise _failed(path, error) from None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise BulkError(f"{path} is not a file, so it cannot be continued; write to another file")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        raise BulkError(f"another run writes to {path}; wait for its end, or write to another file") from None
    except OSError:
        pass  # a file system without locks
    return file


def _failed(path: Path, error: OSError) -> BulkError:
    return BulkError(f"{path} cannot be written: {error.strerror or type(error).__name__}; check the folder and disk")
