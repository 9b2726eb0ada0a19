"""Memory that this server may use, and how much of it is in use: of its control group, or of the whole machine.

The cache of files counts as free, because the kernel drops it before it ends a process. Kubernetes evicts pods by
the same figure.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from service.system.control_groups import groups_v1, groups_v2

_UNLIMITED = 2**60  # v1 writes a number near 2**63
_MACHINE = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes in use and their limit."""

    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class _Files:
    limit: str
    used: str
    cache: str  # the key in memory.stat


_V2 = _Files("memory.max", "memory.current", "inactive_file")
_V1 = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def memory(groups: Sequence[Path] | None = None, machine: Path = _MACHINE) -> Memory:
    """Return the memory of the control group with the smallest limit, or of the machine if no group has a limit.

    `groups` are the folders of the control groups that limit this process; None: find them.
    """
    folders = [*groups_v2(), *groups_v1("memory")] if groups is None else groups
    found = [group for folder in folders for files in (_V2, _V1) if (group := _of_group(folder, files)) is not None]
    return min((*found, _of_machine(machine)), key=lambda one: one.limit)


def _of_group(folder: Path, files: _Files) -> Memory | None:
    """Return the memory of a control group; None if it has no limit."""
    try:
        limit, used = (int((folder / name).read_text()) for name in (files.limit, files.used))
        cached = _number_of((folder / "memory.stat").read_text(), files.cache)
    except (OSError, ValueError):  # no such file, or the word `max`
        return None
    return None if limit >= _UNLIMITED else Memory(max(0, used - cached), limit)


def _of_machine(file: Path) -> Memory:
    try:
        text = file.read_text().replace(":", "").replace("kB", "")
        total, available = (1024 * _number_of(text, key) for key in ("MemTotal", "MemAvailable"))
    except (OSError, ValueError):  # not Linux
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Memory(0, total)
    return Memory(total - available, total)


def _number_of(text: str, key: str) -> int:
    for line in text.splitlines():
        if line.split()[:1] == [key]:
            return int(line.split()[1])
    raise ValueError(f"there is no {key}")
