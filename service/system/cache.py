"""Folders of files that this host makes for itself and can make again: optimised graphs, TensorRT engines.

They lie under $XDG_CACHE_HOME/resnet-service (~/.cache without it), in folders that belong to this user alone, because
what is in them is run. Nothing here is needed: where the folder cannot be used, the caller does without.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PROGRAM = "resnet-service"
_DIGESTS = "digests.json"
_UNUSED_S = 30 * 24 * 3600.0
_ABANDONED_S = 3600.0  # a temporary folder this old belongs to a process that died
_TEMPORARY = "."


def cache_root() -> Path:
    """Return where caches lie; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / _PROGRAM


def key_of(**parts: str) -> str:
    """Return a folder's name that follows from all parts, each as much as the others."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def private_folder(root: Path, kind: str) -> Path:
    """Make `root/kind`, which only this user can write, and return it. Raises OSError if that is not possible."""
    for path in (root, root / kind):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PermissionError(f"{path} can be written by other users, or belongs to one")
    return root / kind


def find_or_make(root: Path, kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return the entry `key`, whole and as it was made; `make` fills a new folder if there is none.

    Several processes may do this at once. Raises OSError, and what `make` raises; then nothing of it stays.
    """
    folder = private_folder(root, kind)
    entry = folder / key
    if has_valid_checksum(entry):
        note_use(entry)
        return entry
    with _temporary_folder(folder) as temporary:
        make(temporary)
        _seal(temporary)
        _publish(temporary, entry)
    remove_old_entries(folder)
    return entry


def note_use(entry: Path) -> None:
    """Keep an entry from being removed for a while, if the cache can be written; it can be read all the same."""
    with contextlib.suppress(OSError):
        os.utime(entry)


def has_valid_checksum(entry: Path) -> bool:
    """Return whether every file of an entry has the digest that was noted when it was made."""
    try:
        noted = json.loads((entry / _DIGESTS).read_text())
        return bool(noted) and noted == _digests(entry)
    except (OSError, ValueError):
        return False


def remove_old_entries(folder: Path) -> None:
    """Remove what nobody has used for long, and what dead processes left half made. Files in use stay readable."""
    now = time.time()
    for path in folder.iterdir():
        limit_s = _ABANDONED_S if path.name.startswith(_TEMPORARY) else _UNUSED_S
        if path.is_dir() and now - path.stat().st_mtime > limit_s:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time do something; `path` is the file that they agree on. Raises OSError."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _temporary_folder(folder: Path) -> Iterator[Path]:
    temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=folder))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _seal(folder: Path) -> None:
    """Bring the files to the disk, where a full one is noticed, and note their digests beside them."""
    for path in folder.iterdir():
        with path.open("rb+") as file:
            os.fsync(file.fileno())
    (folder / _DIGESTS).write_text(json.dumps(_digests(folder)))


def _digests(folder: Path) -> dict[str, str]:
    digests = {}
    for path in folder.iterdir():
        if path.name != _DIGESTS:
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _publish(temporary: Path, entry: Path) -> None:
    """Give a finished folder its name. Another process may have been first, and what is there may be damaged."""
    try:
        temporary.rename(entry)
    except OSError:
        if has_valid_checksum(entry):
            return
        entry.rename(f"{temporary}.damaged")
        temporary.rename(entry)
        shutil.rmtree(f"{temporary}.damaged", ignore_errors=True)
