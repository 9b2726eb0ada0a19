"""The files of a zip, and where their bytes are."""

import errno
import zipfile
from pathlib import Path, PurePosixPath

from training.data_files.listing import DataError, Listing, Place, is_left_behind

_LOCAL_HEADER = 30  # bytes, before the file's name and its extra field
_ENCRYPTED = 0x1


def list_zip(file: Path, opened: zipfile.ZipFile) -> Listing:
    """Return the listing of an open zip. Raises DataError for an encrypted one."""
    members = {PurePosixPath(member.filename): member for member in opened.infolist()}
    if any(member.flag_bits & _ENCRYPTED for member in members.values()):
        raise DataError(f"{file} is encrypted; unpack it and give its folder")
    used = {path: member for path, member in members.items() if not any(map(is_left_behind, path.parts))}

    def read(path: PurePosixPath) -> bytes:
        try:
            return opened.read(members[path])
        except (KeyError, zipfile.BadZipFile, NotImplementedError) as error:
            raise OSError(errno.EIO, f"{path} cannot be read: {error}") from None

    return Listing(
        files=sorted(path for path, member in used.items() if not member.is_dir()),
        folders=sorted(_folders(used)),
        dead=frozenset(),
        read=read,
        place=lambda path: _place(file, members[path]) if path in members else None,
    )


def _folders(members: dict[PurePosixPath, zipfile.ZipInfo]) -> set[PurePosixPath]:
    return {path for path, member in members.items() if member.is_dir()} | {
        folder for path in members for folder in path.parents if folder.parts
    }


def _place(file: Path, member: zipfile.ZipInfo) -> Place | None:
    """Return where the bytes of a member are; None for a compression other than deflate."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return None
    with file.open("rb") as opened:
        opened.seek(member.header_offset)
        header = opened.read(_LOCAL_HEADER)
    name, extra = (int.from_bytes(header[start : start + 2], "little") for start in (26, 28))
    start = member.header_offset + _LOCAL_HEADER + name + extra
    return Place(str(file), start, member.compress_size, member.compress_type == zipfile.ZIP_DEFLATED)
