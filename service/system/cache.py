"""The cache of files that this host can make again: optimized graphs and TensorRT engines.

It is under $XDG_CACHE_HOME/resnet-service (default: ~/.cache), in folders that only this user can write, because the
files are executed. The cache is optional: if it cannot be used, callers work without it.
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
    """Return the folder of the cache; it may not exist."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / _PROGRAM


def key_of(**parts: str) -> str:
    """Return the name of the entry for these parts: their SHA-256 in hexadecimal."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def private_folder(root: Path, kind: str) -> Path:
    """Create `root/kind`, which only this user can write, and return it. Raises OSError."""
    for path in (root, root / kind):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise PermissionError(f"{path} can be written by other users, or belongs to one")
    return root / kind


def find_or_make(root: Path, kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """Return the entry `key` with valid checksums; `make` fills a new folder if there is none.

    Several processes may call this at once. Raises OSError and what `make` raises; the new folder is then removed.
    """
    folder = private_folder(root, kind)
    entry = folder / key
    if has_valid_checksum(entry):
        note_use(entry)
        return entry
    with _temporary_folder(folder) as temporary:
        make(temporary)
        _record_digests(temporary)
        _publish(temporary, entry)
    remove_old_entries(folder)
    return entry


def note_use(entry: Path) -> None:
    """Postpone the removal of an entry; does nothing in a read-only cache."""
    with contextlib.suppress(OSError):
        os.utime(entry)


def has_valid_checksum(entry: Path) -> bool:
    """Return whether every file of an entry has the digest that was recorded with it."""
    try:
        noted = json.loads((entry / _DIGESTS).read_text())
        return bool(noted) and noted == _digests(entry)
    except (OSError, ValueError):
        return False


def remove_old_entries(folder: Path) -> None:
    """Remove entries that were unused for 30 days, and unfinished ones of ended processes. Open files stay readable."""
    now = time.time()
    for path in folder.iterdir():
        limit_s = _ABANDONED_S if path.name.startswith(_TEMPORARY) else _UNUSED_S
        if path.is_dir() and now - path.stat().st_mtime > limit_s:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock among processes on the file `path`. Raises OSError."""
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


def _record_digests(folder: Path) -> None:
    """Flush the files to the disk, which reports a full one, and record their digests beside them."""
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
    """Rename a finished folder. Another process may have been first; a damaged entry is replaced."""
    try:
        temporary.rename(entry)
    except OSError:
        if has_valid_checksum(entry):
            return
        entry.rename(f"{temporary}.damaged")
        temporary.rename(entry)
        shutil.rmtree(f"{temporary}.damaged", ignore_errors=True)
