"""The number of processor cores that this process may use: its affinity, limited by the quotas of control groups."""

import math
import os
from pathlib import Path

from service.system.control_groups import groups_v1, groups_v2


def available_cores() -> int:
    """Return the usable cores, at least 1. A quota of 1.5 cores counts as 2: threads can share a core."""
    quotas = [quota for quota in (*map(_quota_v2, groups_v2()), *map(_quota_v1, groups_v1("cpu"))) if quota is not None]
    return max(1, min(_allowed(), *map(math.ceil, quotas))) if quotas else _allowed()


def _allowed() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS has no affinity


def _quota_v2(group: Path) -> float | None:
    """Return the group's limit in cores; None if there is none."""
    try:
        limit, period = (group / "cpu.max").read_text().split()
        return None if limit == "max" else int(limit) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(group: Path) -> float | None:
    try:
        limit_us = int((group / "cpu.cfs_quota_us").read_text())
        return None if limit_us <= 0 else limit_us / int((group / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
