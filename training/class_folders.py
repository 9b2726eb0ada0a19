"""What lies in a data set's folder, or in a tar of it: one folder a class, found by one rule for both.

A folder that wraps everything, as `train/` in a tar, is passed through; hidden files do not count; any other layout is
refused in one line that says what to change.
"""

import contextlib
import io
import os
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

# What people call the two parts of a data set that is split.
_HIDDEN = (".", "__MACOSX")
TRAINING_NAMES, TEST_NAMES = ("train", "training"), ("test", "val", "validation", "valid")


class DataError(Exception):
    """The data cannot be used as it is. The message is one line that names the next step."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a picture are: a whole file, or a part of a tar."""

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

    In a compressed tar they are at no place.
    """

    files: Sequence[PurePosixPath]
    folders: Sequence[PurePosixPath]
    read: Callable[[PurePosixPath], bytes]
    place: Callable[[PurePosixPath], Place | None]


def existing(source: Path) -> Path:
    """Return the whole path of a folder or a file. Raises DataError if there is none."""
    source = source.expanduser().resolve()
    if not source.exists():
        raise DataError(
            f"there is no folder or tar file {source}; give --data the folder that holds one folder a class"
        )
    return source


@contextlib.contextmanager
def listed(source: Path) -> Iterator[Listing]:
    """List a folder or a tar, without hidden files, and keep the tar open while it is read.

    Raises DataError for what is neither.
    """
    if source.is_dir():
        files: list[PurePosixPath] = []
        folders: list[PurePosixPath] = []
        for inside, entry in walk(source):
            (folders if entry.is_dir() else files).append(PurePosixPath(inside))
        yield Listing(files, folders, lambda path: (source / path).read_bytes(), lambda path: Place(f"{source}/{path}"))
        return
    with contextlib.ExitStack() as stack:
        try:
            tar = stack.enter_context(tarfile.open(source))
            members = {PurePosixPath(member.name): member for member in tar.getmembers()}
        except (tarfile.TarError, EOFError, zlib.error):  # the last two: of a compressed one that is cut off or damaged
            raise DataError(
                f"{source} is neither a folder nor a readable tar file; unpack it and give its folder"
            ) from None

        def read(path: PurePosixPath) -> bytes:
            file = tar.extractfile(members[path])
            return file.read() if file else b""

        def place(path: PurePosixPath) -> Place | None:
            member = members[path]
            return Place(str(source), member.offset_data, member.size) if is_plain else None

        is_plain = isinstance(tar.fileobj, io.BufferedReader)
        ordered = sorted(members)
        files = [path for path in ordered if members[path].isfile()]
        folders = [path for path in ordered if members[path].isdir()]
        yield Listing(_visible(files), _visible(folders), read, place)


def walk(folder: Path, inside: str = "") -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    """Yield the path in the folder, and the entry, of all that is not hidden, in order; links are not entered.

    What is neither a file nor a folder is left out, but not a link that leads nowhere: it counts as a file, so that it
    is listed among those that cannot be read. Raises DataError for a folder that cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            here = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot look into {folder}: {error.strerror}; make it readable, or move it away") from None
    for entry in here:
        if entry.name.startswith(_HIDDEN):
            continue
        is_folder = entry.is_dir()
        if is_folder or entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
            yield inside + entry.name, entry
        if is_folder and not entry.is_symlink():
            yield from walk(Path(entry.path), f"{inside}{entry.name}/")


def _visible(paths: list[PurePosixPath]) -> list[PurePosixPath]:
    return [path for path in paths if not any(part.startswith(_HIDDEN) for part in path.parts)]


def strays(listing: Listing, classes: dict[str, list[PurePosixPath]]) -> list[PurePosixPath]:
    """Return the files that lie in no class folder."""
    inside = {path for files in classes.values() for path in files}
    return [path for path in listing.files if path not in inside]


def find_classes(listing: Listing, source: Path) -> dict[str, list[PurePosixPath]]:
    """Return class name → files, in the order of the labels. Raises DataError for another layout."""
    depth = 0  # of the folders that wrap everything, as in train/cat/1.png
    while len({path.parts[: depth + 1] for path in listing.files}) == 1 and len(listing.files[0].parts) > depth + 2:
        depth += 1
    if not listing.files:
        raise DataError(f"{source} holds no files; it needs one folder a class, with that class's pictures in it")
    classes: dict[str, list[PurePosixPath]] = {
        path.parts[depth]: [] for path in listing.folders if len(path.parts) == depth + 1
    }
    for path in listing.files:
        inner = path.parts[depth:]
        if len(inner) > 2:
            raise DataError(_deep_nesting_message(source, path, sorted(classes)))
        if len(inner) == 2:
            classes.setdefault(inner[0], []).append(path)
    if not classes:
        raise DataError(f"the pictures lie directly in {source}; put those of each class into a folder named after it")
    _refuse_unusable(classes, source)
    return dict(sorted(classes.items()))


def _refuse_unusable(classes: dict[str, list[PurePosixPath]], source: Path) -> None:
    for name, files in sorted(classes.items()):
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # how Python tells of bytes that are not UTF-8
            raise DataError(f"the name of class folder {name!r} is not UTF-8; rename it")
        if not files:
            raise DataError(f"class folder {name!r} of {source} is empty; put pictures into it or remove it")
    if len(classes) == 1:
        raise DataError(f"{source} has only one class folder, {next(iter(classes))!r}; a classifier needs at least two")


def _deep_nesting_message(source: Path, path: PurePosixPath, folders: list[str]) -> str:
    hint = "give --data the folder that holds one folder a class"
    train = next((name for name in folders if name.lower() in TRAINING_NAMES), None)
    test = next((name for name in folders if name.lower() in TEST_NAMES), None)
    if train and test:
        hint = f"give --data {source / train} --test-data {source / test}"
    return f"wrong nesting in {source}: {path} lies deeper than class/picture; {hint}"
