"""Data whose images are no files of their own, converted once into a tar of class folders in the user's cache."""

import errno
import io
import os
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from rich.console import Console

from service.system.cache import cache_root, locked
from training.data_files.listing import DataError


def converted(source: Path, key: str, images: Iterable[tuple[PurePosixPath, bytes]]) -> Path:
    """Return the tar of these images, path and bytes, which is written unless there is one of this key.

    Raises DataError if it cannot be written.
    """
    folder = cache_root() / "datasets"
    tar = folder / f"{key}-converted.tar"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f".{tar.name}.lock"):
            if not tar.is_file():
                Console(stderr=True, highlight=False, soft_wrap=True).print(
                    f"converting {source.name} into image files, once, in {folder}", markup=False
                )
                _write(tar, images)
    except OSError as error:
        raise DataError(
            f"cannot convert {source} into {folder}: {os.strerror(error.errno or errno.EIO)}; free space there, or set "
            "XDG_CACHE_HOME to a folder on another disk"
        ) from None
    return tar


def _write(tar: Path, images: Iterable[tuple[PurePosixPath, bytes]]) -> None:
    with tempfile.NamedTemporaryFile(prefix=".converting-", dir=tar.parent) as hidden:
        with tarfile.open(fileobj=hidden, mode="w") as file:
            for path, content in images:
                member = tarfile.TarInfo(str(path))
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
        hidden.flush()
        os.link(hidden.name, tar)
