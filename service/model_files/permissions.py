"""Messages about unreadable files, for operators and clients. They contain no path."""

import os
import stat
from pathlib import Path


def why_unreadable(path: Path, error: OSError) -> str:
    """Return the end of a sentence: why this process cannot read a file or folder, and the permissions it needs."""
    if not isinstance(error, PermissionError):
        return f": {(error.strerror or 'unknown error').lower()}; check the disk, or the mount"
    closed = _first_closed(path)
    user = f"user id {os.geteuid()}"
    if closed is None:
        return f" by {user}; check its permissions"
    status = closed.stat()
    what = "it" if closed == path else "a folder above it"
    needed = "list and enter" if stat.S_ISDIR(status.st_mode) else "read"
    return (
        f" by {user}: {what} belongs to user id {status.st_uid}, group id {status.st_gid}, with mode "
        f"{stat.S_IMODE(status.st_mode):04o}; change its owner or permissions so that {user} can {needed} it"
    )


def _first_closed(path: Path) -> Path | None:
    """Return the outermost part of the path that this process cannot enter or read."""
    for part in (*reversed(path.absolute().parents), path):
        mode = os.X_OK if part != path else os.R_OK | (os.X_OK if part.is_dir() else 0)
        if not os.access(part, mode, effective_ids=os.access in os.supports_effective_ids):
            return part
    return None
