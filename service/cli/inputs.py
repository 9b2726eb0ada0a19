"""The images that a command line names: files, folders, patterns, and `-` for standard input."""

import glob
import io
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from service.errors import BadRequest, image_too_large

STANDARD_INPUT = "-"
IMAGE_ENDINGS = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp"))


def find_images(names: Iterable[str]) -> Iterator[str]:
    """Yield the names of images in order; a folder yields the images in it and below, by file ending.

    A pattern with `**` visits folders itself, so folders that it matches yield no images. A name that matches nothing
    is yielded unchanged, so that reading it reports the fault.
    """
    for name in names:
        is_pattern = glob.has_magic(name) and not Path(name).exists()
        fitting = sorted(glob.glob(name, recursive=True)) if is_pattern else []
        if "**" in Path(name).parts and any(map(os.path.isfile, fitting)):
            fitting = [found for found in fitting if not os.path.isdir(found)]
        for found in fitting or [name]:
            yield from _images_in(Path(found)) if Path(found).is_dir() else (found,)


def _images_in(folder: Path) -> list[str]:
    found = sorted(path for path in folder.rglob("*") if _is_image(path, folder))
    return [str(path) for path in found or [folder]]


def _is_image(path: Path, folder: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.suffix.lower() in IMAGE_ENDINGS and not is_hidden and path.is_file()


def read_image(name: str, most_bytes: int) -> bytes:
    """Return the content of a file, or of standard input for `-`. Raises BadRequest, TooLarge."""
    try:
        content = _read(name, most_bytes + 1)
    except FileNotFoundError:
        raise BadRequest("There is no such file.", code="no_file") from None
    except IsADirectoryError:
        raise BadRequest("The folder has no JPEG, PNG or WebP file.", code="no_file") from None
    except OSError:
        raise BadRequest("The file cannot be read.", code="no_file") from None
    return checked_size(content, most_bytes)


def checked_size(content: bytes, most_bytes: int) -> bytes:
    """Return the content of a file unless it is empty or above the limit. Raises BadRequest, TooLarge."""
    if len(content) > most_bytes:
        raise image_too_large(most_bytes)
    if not content:
        raise BadRequest("The file is empty.", code="no_file")
    return content


def _read(name: str, most_bytes: int) -> bytes:
    if name == STANDARD_INPUT:
        return sys.stdin.buffer.read(most_bytes)
    with open(name, "rb", buffering=0) as opened:  # a buffer of `most_bytes` for each file would take longer than it
        is_file = stat.S_ISREG((found := os.fstat(opened.fileno())).st_mode)
        content = opened.read(min(most_bytes, found.st_size + 1)) if is_file else b""
        if is_file and len(content) == found.st_size:
            return content
        with io.BufferedReader(opened) as rest:  # a pipe, or a file that changes meanwhile
            return content + rest.read(most_bytes - len(content))
