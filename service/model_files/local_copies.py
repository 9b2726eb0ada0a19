"""Copies of the served model files in this host's private cache.

Overwriting a file in the folder of models does not affect the loaded version: a process that restarts loads the
accepted copy. Without a cache it loads the file in the folder. Several servers may share the cache: a copy in use is
locked.
"""

import contextlib
import fcntl
import functools
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from service.model_files.repository import MODEL_FILE
from service.system.cache import find_or_make, has_valid_checksum, private_folder

_KIND = "models"
_locked: dict[str, int] = {}  # the open file of each served copy, by digest


def store(cache: Path, sha256: str, content: bytes) -> None:
    """Copy a model file, unless a copy exists or the cache cannot be used."""
    with contextlib.suppress(OSError):
        find_or_make(cache, _KIND, sha256, functools.partial(_write, content))


def _write(content: bytes, folder: Path) -> None:
    (folder / MODEL_FILE).write_bytes(content)


def find_copy(cache: Path, sha256: str) -> bytes | None:
    """Return the model file with this digest, or None."""
    with contextlib.suppress(OSError):
        entry = private_folder(cache, _KIND) / sha256
        if has_valid_checksum(entry):
            return (entry / MODEL_FILE).read_bytes()
    return None


def lock(cache: Path, digests: Collection[str]) -> None:
    """Lock the copies of the models that are served here, until others are served or this process ends."""
    for sha256 in _locked.keys() - set(digests):
        os.close(_locked.pop(sha256))
    for sha256 in set(digests) - _locked.keys():
        with contextlib.suppress(OSError):
            descriptor = os.open(private_folder(cache, _KIND) / sha256 / MODEL_FILE, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            _locked[sha256] = descriptor


def prune(cache: Path) -> None:
    """Remove the copies that are no longer served, here or by another server."""
    with contextlib.suppress(OSError):
        for entry in private_folder(cache, _KIND).iterdir():
            if entry.name not in _locked and not entry.name.startswith(".") and not _is_locked(entry):
                shutil.rmtree(entry, ignore_errors=True)  # names with a dot are unfinished copies


def _is_locked(entry: Path) -> bool:
    try:
        with (entry / MODEL_FILE).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
