"""The files of a tar, links followed; and those of a tar that is itself a part of a file."""

import io
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath

from training.data_files.listing import DataError, Listing, Place, is_left_behind

_MOST_LINKS = 8  # one after the other, to one file

Members = dict[PurePosixPath, tarfile.TarInfo]


class TarFiles:
    """The content of an open tar. Only one thread at a time may read it."""

    def __init__(self, tar: tarfile.TarFile, is_left_out: Callable[[str], bool]) -> None:
        """Raises tarfile.TarError, and of a compressed tar that is damaged EOFError or zlib.error."""
        self._tar = tar
        self._is_plain = isinstance(tar.fileobj, io.BufferedReader)
        members = {PurePosixPath(member.name.lstrip("/")): member for member in tar.getmembers()}
        self._members, dead = _followed(members)

        def used(paths: set[PurePosixPath]) -> list[PurePosixPath]:
            return sorted(path for path in paths if path.parts and not any(map(is_left_out, path.parts)))

        folders = {parent for path in members for parent in path.parents if parent.parts}
        folders |= {path for path, member in members.items() if member.isdir()}
        self.files = used(self._members.keys() | dead)
        self.folders = used(folders)
        self.dead = frozenset(used(dead))

    def read(self, path: PurePosixPath) -> bytes:
        """Return the bytes of a file. Raises OSError for a dead link."""
        member = self._members.get(path)
        if member is None:
            raise FileNotFoundError(f"{path} is a link that leads nowhere")
        file = self._tar.extractfile(member)
        return file.read() if file else b""

    def where(self, path: PurePosixPath) -> tuple[int, int] | None:
        """Return at which byte of the tar a file begins, and how many it has; None where the tar is compressed."""
        member = self._members.get(path)
        if not self._is_plain:
            return None
        return (0, 0) if member is None else (member.offset_data, member.size)


def place_in_one_piece(listing: Listing, tar: PurePosixPath) -> Place:
    """Return where a tar in a listing is. Raises DataError if it is inside a compressed tar."""
    place = listing.place(tar)
    if place is None or place.is_deflated:
        raise DataError(f"{tar} is in a compressed archive; unpack that and give its folder")
    return place


def members_of(place: Place) -> dict[PurePosixPath, Place]:
    """Return the place of each file in an uncompressed tar, which may itself be a part of a file.

    Raises DataError for a compressed or damaged tar.
    """
    try:
        with open(place.path, "rb") as file:
            file.seek(place.offset)  # where the tar is taken to begin; its offsets are those in the file
            with tarfile.open(fileobj=file, mode="r:") as tar:
                members = [member for member in tar.getmembers() if member.isfile()]
    except (tarfile.TarError, OSError):
        raise DataError(f"{place.path} is or holds no uncompressed tar that can be read; unpack it") from None
    places = {PurePosixPath(one.name.lstrip("/")): Place(place.path, one.offset_data, one.size) for one in members}
    return {path: where for path, where in places.items() if not any(map(is_left_behind, path.parts))}


def _followed(members: Members) -> tuple[Members, set[PurePosixPath]]:
    """Return all files, also under the names that links give them, and the links that lead to nothing in the tar."""
    files = {path: member for path, member in members.items() if member.isfile()}
    folders = {parent for path in files for parent in path.parents}
    found, dead = dict(files), set()
    for path, member in members.items():
        if not (member.issym() or member.islnk()):
            continue
        target = _target(path, members)
        if target in files:
            found[path] = files[target]
        elif target in folders and not path.is_relative_to(target):
            found |= _moved(files, target, path)
        else:
            dead.add(path)
    return found, dead


def _moved(files: Members, folder: PurePosixPath, to: PurePosixPath) -> Members:
    return {to / path.relative_to(folder): member for path, member in files.items() if path.is_relative_to(folder)}


def _target(path: PurePosixPath, members: Members) -> PurePosixPath:
    """Return where a link leads in the end, as a path in the tar."""
    for step in _steps(path, members):
        path = step
    return path


def _steps(path: PurePosixPath, members: Members) -> Iterator[PurePosixPath]:
    for _ in range(_MOST_LINKS):
        member = members.get(path)
        if member is None or not (member.issym() or member.islnk()):
            return
        target = posixpath.join(path.parent, member.linkname) if member.issym() else member.linkname
        path = PurePosixPath(posixpath.normpath(target))
        yield path
