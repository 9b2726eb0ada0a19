"""The input of a bulk classification: a folder, a list of paths or a tar archive.

Each is read sequentially and in constant memory. The order is the same as long as the input does not change.
"""

import heapq
import os
import tarfile
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from lzma import LZMAError
from pathlib import Path
from typing import BinaryIO, Protocol

from service.cli.inputs import IMAGE_ENDINGS, STANDARD_INPUT, checked_size, read_image
from service.errors import BadRequest

_NAMES_AT_ONCE = 65_536  # of one folder, in memory
_HEAD_BYTES = 4096
_TAR_BLOCK = 512
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TAR_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, LZMAError)


class BulkError(Exception):
    """A bulk classification cannot start or continue. The message is one line for the user."""


class Read(Protocol):
    """Returns the bytes of an image, up to a limit. Raises ServiceError."""

    def __call__(self, most_bytes: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class BulkItem:
    """One image of the input."""

    id: str
    read: Read


class BulkInput(Protocol):
    """Images in a fixed order. Iteration raises BulkError if the input cannot be read."""

    reads_in_order: bool  # an item is read before the next one is taken

    def __iter__(self) -> Iterator[BulkItem]: ...

    @property
    def total(self) -> int | None:
        """The number of images, if it is known."""

    @property
    def fraction(self) -> float | None:
        """The part of the input that was read, from 0 to 1, if it is known."""


def open_input(name: str) -> BulkInput:
    """Return the input that a path names. Raises BulkError."""
    path = Path(name)
    if path.is_dir():
        return ImageFolder(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
        is_tar = tarfile.is_tarfile(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    if is_tar:
        return ImageTar(path)
    if path.suffix.lower() in IMAGE_ENDINGS or b"\0" in head:
        raise BulkError(f"{name} is no folder, list of paths or tar archive; name one of these")
    return ImageList(path)


class ImageFolder:
    """The images of a folder and its subfolders, by file ending; ids are relative paths.

    The order is by name, folder by folder. Hidden files and links to folders are skipped.
    """

    reads_in_order = False
    fraction: float | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)
        self._total: int | None = None
        threading.Thread(target=self._count, daemon=True).start()

    @property
    def total(self) -> int | None:
        """The number of images, once a thread has counted them."""
        return self._total

    def __iter__(self) -> Iterator[BulkItem]:
        return self._walk("")

    def _walk(self, below: str) -> Iterator[BulkItem]:
        for name, is_folder in _sorted_entries(os.path.join(self._folder, below)):
            relative = os.path.join(below, name)
            if is_folder:
                yield from self._walk(relative)
            else:
                yield BulkItem(_as_id(os.fsencode(relative)), partial(read_image, os.path.join(self._folder, relative)))

    def _count(self) -> None:
        folders, count = [self._folder], 0
        try:
            while folders:
                with os.scandir(folders.pop()) as entries:
                    for entry in entries:
                        if _is_folder(entry):
                            folders.append(entry.path)
                        else:
                            count += _is_image(entry)
        except OSError:
            return  # the walk reports the error
        self._total = count


def _sorted_entries(folder: str) -> Iterator[tuple[str, bool]]:
    """Yield the images and subfolders of a folder by name, with whether each is a folder.

    A folder of more than 65,536 entries is listed several times, so that memory does not grow with it.
    """
    last = ""
    while True:
        try:
            with os.scandir(folder) as entries:
                later = ((entry.name, is_folder) for entry in entries if entry.name > last
                         if (is_folder := _is_folder(entry)) or _is_image(entry))  # fmt: skip
                names = heapq.nsmallest(_NAMES_AT_ONCE, later)
        except OSError as error:
            raise _unreadable(Path(folder), error) from None
        yield from names
        if len(names) < _NAMES_AT_ONCE:
            return
        last = names[-1][0]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)


def _is_image(entry: os.DirEntry[str]) -> bool:
    return _has_image_name(entry.name) and entry.is_file()


def _has_image_name(name: str) -> bool:
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_ENDINGS


class ImageList:
    """The files of a text file with one path a line, relative to the current folder; ids are the lines."""

    reads_in_order = False
    total: int | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = max(1, path.stat().st_size)
        self._read_bytes = 0

    @property
    def fraction(self) -> float:
        """The part of the list that was read."""
        return self._read_bytes / self._size

    def __iter__(self) -> Iterator[BulkItem]:
        try:
            with self._path.open("rb") as file:
                for line in file:
                    name = line.removeprefix(b"" if self._read_bytes else _BYTE_ORDER_MARK).rstrip(b"\r\n")
                    self._read_bytes += len(line)
                    if name.strip():
                        yield BulkItem(_as_id(name), partial(_read_listed, os.fsdecode(name)))
        except OSError as error:
            raise _unreadable(self._path, error) from None


def _read_listed(name: str, most_bytes: int, /) -> bytes:
    if "\0" in name:
        raise BadRequest("There is no such file.", code="no_file")
    return read_image(f"./{name}" if name == STANDARD_INPUT else name, most_bytes)


class ImageTar:
    """The images of a tar archive, compressed or not, by file ending; ids are the names of the members."""

    reads_in_order = True
    total: int | None = None

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = max(1, path.stat().st_size)
        self._file: BinaryIO | None = None

    @property
    def fraction(self) -> float:
        """The part of the archive that was read."""
        return 0.0 if self._file is None else min(1.0, self._file.tell() / self._size)

    def __iter__(self) -> Iterator[BulkItem]:
        last = "its first bytes"
        try:
            with self._path.open("rb") as file, tarfile.open(fileobj=file, mode="r:*") as archive:
                self._file = file
                while member := archive.next():
                    archive.members.clear()  # type: ignore[attr-defined]  # else the names of all members stay in memory
                    last = member.name
                    if member.isreg() and _is_shown(member.name):
                        yield BulkItem(_member_id(member.name), partial(_read_member, archive, member))
                _check_end(archive)
        except _TAR_ERRORS as error:
            raise _damaged(last, error) from None
        finally:
            self._file = None


def _is_shown(name: str) -> bool:
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return bool(parts) and _has_image_name(parts[-1]) and not any(part.startswith(".") for part in parts)


def _read_member(archive: tarfile.TarFile, member: tarfile.TarInfo, most_bytes: int, /) -> bytes:
    try:
        opened = archive.extractfile(member)
        content = b"" if opened is None else opened.read(most_bytes + 1)
    except _TAR_ERRORS as error:
        raise _damaged(member.name, error) from None
    return checked_size(content, most_bytes)


def _damaged(last: str, error: Exception) -> BulkError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return BulkError(f"the archive cannot be read at or after {last!r}: {reason}; copy it again")


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise tarfile.ReadError if the last block of the archive is neither empty nor zero: the archive is damaged."""
    assert archive.fileobj is not None  # noqa: S101 - it is open
    archive.fileobj.seek(archive.offset)
    if any(archive.fileobj.read(_TAR_BLOCK)):
        raise tarfile.ReadError("the next header is damaged")


def _member_id(name: str) -> str:
    return _as_id(name.encode(errors="surrogateescape"))


def _as_id(name: bytes) -> str:
    """Return a name as text; bytes that are not UTF-8 are written as \\xNN."""
    return name.decode(errors="backslashreplace")


def _unreadable(path: Path, error: OSError) -> BulkError:
    return BulkError(
        f"{path} cannot be read: {error.strerror or type(error).__name__}; check the path and the permissions"
    )
