"""A copy of each model file that serves, in this host's private cache.

Whoever overwrites a file in the folder of models takes nothing from what serves: a process that starts again finds
there what was accepted. Without a cache it has to do with the folder. (Servers that share a cache and not their models
drop each other's copies.)
"""

import contextlib
import functools
import shutil
from collections.abc import Collection
from pathlib import Path

from service.private_cache import find_or_make, is_intact, private_folder

_KIND = "models"
_FILE = "model.onnx"


def keep(cache: Path, sha256: str, content: bytes) -> None:
    """Copy a model file, unless that was done before or the cache cannot be used."""
    with contextlib.suppress(OSError):
        find_or_make(cache, _KIND, sha256, functools.partial(_write, content))


def _write(content: bytes, folder: Path) -> None:
    (folder / _FILE).write_bytes(content)


def find_kept(cache: Path, sha256: str) -> bytes | None:
    """Return the model file with this digest, or None."""
    with contextlib.suppress(OSError):
        entry = private_folder(cache, _KIND) / sha256
        if is_intact(entry):
            return (entry / _FILE).read_bytes()
    return None


def forget_all_but(cache: Path, digests: Collection[str]) -> None:
    """Remove the copies of what serves no more."""
    with contextlib.suppress(OSError):
        for entry in private_folder(cache, _KIND).iterdir():
            if entry.name not in digests and not entry.name.startswith("."):  # those are being made
                shutil.rmtree(entry, ignore_errors=True)
