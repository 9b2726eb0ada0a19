"""The control groups that limit this process: its own and all above it, of cgroup v2 and v1 (Linux).

A container usually sees its own group as the root. A systemd unit with `CPUQuota=` or `MemoryMax=` does not, and finds
its group in /proc/self/cgroup. The limits of all groups above apply too, so callers use the smallest.
"""

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def groups_v2() -> list[Path]:
    """Return the folders of this process's group and of those above it, the root last."""
    return list(_folders(_ROOT, _path_of("")))


def groups_v1(controller: str) -> list[Path]:
    """Return the folders of this process's group for a controller (cpu, memory) and of those above it."""
    return list(_folders(_ROOT / controller, _path_of(controller)))


def _path_of(controller: str) -> str:
    """Return the path of this process's group as /proc/self/cgroup has it; v2 is the line without a controller."""
    try:
        lines = _OWN.read_text().splitlines()
    except OSError:
        return "/"
    found = [line.split(":", 2) for line in lines if line.count(":") >= 2]
    return next((path for _, controllers, path in found if controller in controllers.split(",")), "/")


def _folders(mount: Path, path: str) -> Iterator[Path]:
    """Yield existing folders only: in a container the path may be the host's, which the mount does not show."""
    group = mount / path.strip("/")
    for folder in (group, *group.parents):
        if folder.is_dir():
            yield folder
        if folder == mount:
            return
