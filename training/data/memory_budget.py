"""The largest size of a data set that is packed: held in memory as pixels, and written to the disk once."""

import shutil
from pathlib import Path

import torch

from service.system.control_groups import groups_v1, groups_v2

# The rest is for the network, its activations and the page cache (decision 24).
_SHARE_OF_MEMORY, _SHARE_OF_GPU, _SHARE_OF_DISK = 0.4, 0.6, 0.8
_NO_LIMIT = 1 << 60  # bytes


def too_big(count: int, side: int, folder: Path | None, *, processes: int = 1) -> str | None:
    """Return the reason why this number of images of `side` x `side` pixels should not be packed into a folder, or
    None.

    Without a folder they are packed already. `processes` share this machine's memory, and each of them has all images
    in memory.
    """
    size = count * side * side * 3
    limits = [("memory", _SHARE_OF_MEMORY * free_memory() / processes)]
    if folder is not None:
        limits.append(("disk space", _SHARE_OF_DISK * _free_disk(folder)))
    if torch.cuda.is_available():
        limits.append(("memory of the GPU", _SHARE_OF_GPU * torch.cuda.mem_get_info()[0]))
    for name, limit in limits:
        if size > limit:
            return (
                f"packed they would take {size / 1e9:,.1f} GB, and there are {limit / 1e9:,.1f} GB of {name} to spare"
            )
    return None


def free_memory() -> int:
    """Return the bytes of memory that this process can still allocate: the machine's, or its control group's."""
    return min(_free_on_the_machine(), *map(_free_in_v2, groups_v2()), *map(_free_in_v1, groups_v1("memory")))


def _free_on_the_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return _NO_LIMIT
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), _NO_LIMIT)


def _free_in_v2(group: Path) -> int:
    return _free_in(group, "memory.max", "memory.current", "inactive_file")


def _free_in_v1(group: Path) -> int:
    return _free_in(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _free_in(group: Path, limit_file: str, usage_file: str, reclaimable: str) -> int:
    """Return the bytes that a control group still allows; cached file pages that it can drop count as free."""
    try:
        limit, used = (group / limit_file).read_text().strip(), int((group / usage_file).read_text())
        counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return _NO_LIMIT if limit == "max" else max(0, int(limit) - used + int(counts.get(reclaimable, 0)))
    except (OSError, ValueError):
        return _NO_LIMIT


def _free_disk(folder: Path) -> int:
    """Return the free bytes of the disk that a folder is on, or will be."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    return shutil.disk_usage(there).free
