"""How many processor cores this process may really use: its affinity, cut by the container's quota."""

import math
import os
from pathlib import Path

_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")


def available_cores() -> int:
    """Return the usable cores, at least 1. A quota of 1.5 cores counts as 2: threads may share, idle cores may not."""
    allowed = len(os.sched_getaffinity(0))
    quota = _quota()
    return allowed if quota is None else max(1, min(allowed, math.ceil(quota)))


def _quota() -> float | None:
    """The container's limit in cores; None if there is none. Docker shows each container its own group at the root."""
    try:
        limit, period = _CGROUP_V2.read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        pass
    try:
        limit_us = int((_CGROUP_V1 / "cpu.cfs_quota_us").read_text())
        return None if limit_us <= 0 else limit_us / int((_CGROUP_V1 / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
