"""The files of a data set, in a folder or in a tar, and where their bytes are.

Links to folders are followed, but not back to a folder around them. Hidden files, and the folders that operating
systems and storage boxes leave behind, are left out. A folder in a tar is named as one on the disk: images.tar/train.
"""

import contextlib
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from training.data_files.tars import TarFiles

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
_MOST_LINKS = 4  # to folders, on the way to one file; folders that link to each other would have too many ways

Kind = Literal["file", "folder", "dead"]  # dead: a link that leads nowhere, or back to a folder around it


class DataError(Exception):
    """The data cannot be used as it is. The message is one line that names the next step."""


@dataclass(frozen=True, slots=True)
class Place:
    """The location of an image's bytes: a whole file, or a part of a tar."""

    path: str
    offset: int = 0
    length: int = -1  # bytes; -1: to the end

    def read(self) -> bytes:
        """Return the bytes. Raises OSError."""
        with open(self.path, "rb") as file:
            file.seek(self.offset)
            return file.read(self.length)


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


def existing(source: Path) -> Path:
    """Return the whole path of a folder, a file, or a folder in a tar. Raises DataError if there is none."""
    source = source.expanduser().resolve()
    if not source.exists() and tar_around(source) is None:
        raise DataError(f"there is no folder or tar file {source}; give the folder that holds one folder a class")
    return source


def tar_around(source: Path) -> Path | None:
    """Return the file that a path leads into, or is; None for a path on the disk or to nowhere."""
    return next((path for path in (source, *source.parents) if path.is_file()), None)


@contextlib.contextmanager
def listed(source: Path) -> Iterator[Listing]:
    """List a folder or a tar, without ignored files, and keep the tar open during the reading. Raises DataError for
    other paths.
    """
    tar = tar_around(source)
    if tar is None:
        yield _folder(source)
        return
    inside = PurePosixPath(source.relative_to(tar))
    with contextlib.ExitStack() as stack:
        try:
            found = TarFiles(stack.enter_context(tarfile.open(tar)), inside, is_left_behind)
        except (tarfile.TarError, EOFError, zlib.error):  # the last two: of a compressed one that is cut off or damaged
            raise DataError(
                f"{tar} is neither a folder nor a readable tar file; unpack it and give its folder"
            ) from None
        if inside.parts and not (found.files or found.folders):
            raise DataError(f"there is no folder {inside} in {tar}; give --data {tar} alone, or a folder that is in it")

        def place(path: PurePosixPath) -> Place | None:
            where = found.where(path)
            return None if where is None else Place(str(tar), *where)

        yield Listing(found.files, found.folders, found.dead, found.read, place)


def _folder(source: Path) -> Listing:
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
