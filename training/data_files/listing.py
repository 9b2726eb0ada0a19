"""The files of a data set, and where their bytes are; and the files of a folder on the disk.

Links to folders are followed, but not back to a folder around them. Hidden files, and the folders that operating
systems and storage boxes leave behind, are left out.
"""

import contextlib
import errno
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

# In lower case: Windows; Synology, QNAP, NetApp; Linux, Android; macOS; Python.
_LEFT_BEHIND = frozenset(
    [
        "$recycle.bin",
        "recycler",
        "recycled",
        "system volume information",
        "$extend",
        "$winreagent",
        "config.msi",
        "@eadir",
        "#recycle",
        "#snapshot",
        "@tmp",
        "@recycle",
        "@recently-snapshot",
        "@transcode",
        "@__thumb",
        "~snapshot",
        "lost+found",
        "lost.dir",
        "network trash folder",
        "temporary items",
        "thevolumesettingsfolder",
        "icon\r",
        "__pycache__",
    ]
)
_LEFT_BEHIND_BEGINNINGS = (".", "__MACOSX")
_RECOVERED_BY_WINDOWS = re.compile(r"found\.\d{3}", re.IGNORECASE)
_MOST_BYTES = 1 << 30  # of one image that a zip has compressed
_MOST_LINKS = 4  # to folders, on the way to one file; folders that link to each other would have too many ways

Kind = Literal["file", "folder", "dead"]  # dead: a link that leads nowhere, or back to a folder around it


class DataError(Exception):
    """The data cannot be used as it is. The message is one line that names the next step."""


@dataclass(frozen=True, slots=True)
class Place:
    """The location of an image's bytes: a whole file, or a part of a tar or zip."""

    path: str
    offset: int = 0
    length: int = -1  # bytes; -1: to the end
    is_deflated: bool = False  # compressed by itself, as in a zip

    def read(self) -> bytes:
        """Return the bytes, decompressed. Raises OSError."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            content = file.read(self.length)
        return _inflated(content) if self.is_deflated else content


def _inflated(content: bytes) -> bytes:
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, _MOST_BYTES)
    except zlib.error as error:
        raise OSError(errno.EIO, f"damaged: {error}") from None


@dataclass(frozen=True, slots=True)
class Listing:
    """The files and folders of a data set, by their path inside it, how to read a file, and where its bytes are.

    In a compressed tar they are at no place. Dead links count as files, so that they are listed among those that
    cannot be read.
    """

    files: Sequence[PurePosixPath]
    folders: Sequence[PurePosixPath]
    dead: frozenset[PurePosixPath]
    read: Callable[[PurePosixPath], bytes]
    place: Callable[[PurePosixPath], Place | None]


def of_places(places: Mapping[PurePosixPath, Place]) -> Listing:
    """Return the listing of files whose places are known."""
    return Listing(sorted(places), (), frozenset(), lambda path: places[path].read(), places.get)


def renamed(listing: Listing, names: Mapping[PurePosixPath, PurePosixPath]) -> Listing:
    """Return the listing of some of the files under other names: new name → old name."""
    return Listing(
        sorted(names),
        (),
        frozenset(name for name, old in names.items() if old in listing.dead),
        lambda path: listing.read(names[path]),
        lambda path: listing.place(names[path]),
    )


def within(listing: Listing, folder: PurePosixPath) -> Listing:
    """Return the files and folders in one folder of a listing."""
    if not folder.parts:
        return listing

    def inner(paths: Iterable[PurePosixPath]) -> list[PurePosixPath]:
        return [path.relative_to(folder) for path in paths if path != folder and path.is_relative_to(folder)]

    return Listing(
        inner(listing.files),
        inner(listing.folders),
        frozenset(inner(listing.dead)),
        lambda path: listing.read(folder / path),
        lambda path: listing.place(folder / path),
    )


def list_folder(source: Path) -> Listing:
    """Return the files of a folder on the disk. Raises DataError for one that cannot be read."""
    paths: dict[Kind, list[PurePosixPath]] = {"file": [], "folder": [], "dead": []}
    files: list[PurePosixPath] = []
    for inside, _, kind in walk(source):
        path = PurePosixPath(inside)
        paths[kind].append(path)
        if kind != "folder":
            files.append(path)
    read = lambda path: (source / path).read_bytes()  # noqa: E731
    return Listing(files, paths["folder"], frozenset(paths["dead"]), read, lambda path: Place(f"{source}/{path}"))


def walk(folder: Path) -> Iterator[tuple[str, "os.DirEntry[str]", Kind]]:
    """Yield path, entry and kind of all files and folders that are not ignored, in order.

    Other entries, such as sockets, are skipped. Raises DataError for a folder that cannot be read.
    """
    with _readable(folder):
        facts = folder.stat()
    yield from _walk(folder, "", ((facts.st_dev, facts.st_ino),), 0)


def _walk(
    folder: Path, inside: str, above: tuple[tuple[int, int], ...], links: int
) -> Iterator[tuple[str, "os.DirEntry[str]", Kind]]:
    with _readable(folder), os.scandir(folder) as entries:
        here = sorted(entries, key=lambda entry: entry.name)
    for entry in here:
        if is_left_behind(entry.name):
            continue
        is_link = entry.is_symlink()
        kind, identity = _seen(entry)
        if kind == "folder" and (identity in above or links + is_link > _MOST_LINKS):
            kind = "dead"
        if kind is not None:
            yield inside + entry.name, entry, kind
        if kind == "folder":
            yield from _walk(Path(entry.path), f"{inside}{entry.name}/", (*above, identity), links + is_link)


def _seen(entry: "os.DirEntry[str]") -> tuple[Kind | None, tuple[int, int]]:
    """Return what an entry is, links followed, and of a folder its device and number."""
    try:
        if entry.is_dir():
            facts = entry.stat()
            return "folder", (facts.st_dev, facts.st_ino)
        if entry.is_file():
            return "file", (0, 0)
        return ("dead" if entry.is_symlink() and not os.path.exists(entry.path) else None), (0, 0)
    except OSError:  # a link to itself, or into a folder that is closed to us
        return "dead", (0, 0)


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"cannot look into {folder}: {error.strerror}; make it readable, or move it away") from None


def is_left_behind(name: str) -> bool:
    """Return whether a file or folder is ignored by its name: hidden, or of an operating system."""
    return (
        name.startswith(_LEFT_BEHIND_BEGINNINGS)
        or name.lower() in _LEFT_BEHIND
        or _RECOVERED_BY_WINDOWS.fullmatch(name) is not None
    )
