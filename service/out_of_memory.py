"""Whether a process that was killed was probably killed for lack of memory, from the container's own counters.

Only the kernel knows who sent a SIGKILL. A container's control group (v2 or v1) shows its limit and how often the
kernel has killed in it; outside of containers neither is there.
"""

import contextlib
import re
import signal
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")
_KILLS = ("memory.events", "memory/memory.oom_control")
_UNLIMITED = 2**60  # v1 writes a number near 2**63


def hint_at_memory(code: int, groups: Path = _GROUPS) -> str:
    """Return what to add to the report of a process that ended with this code: advice, or nothing."""
    if code != -signal.SIGKILL or _kills(groups) == 0:
        return ""
    limit = _limit(groups)
    if limit is None:
        return " (probably for lack of memory: the kernel's log, dmesg, says so; set fewer --processes, or add memory)"
    return (
        f" (probably for lack of memory: the limit is {limit / 2**20:,.0f} MiB; raise it, with --memory of docker run "
        "or MEMORY_LIMIT of the compose file, or set fewer --processes)"
    )


def _limit(groups: Path) -> int | None:
    """The most bytes that the container may use; None without a limit or a container."""
    text = _first_text(groups, _LIMITS).strip()
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else None


def _kills(groups: Path) -> int | None:
    """How often the kernel has killed a process of this container; None where nothing counts that."""
    found = re.search(r"^oom_kill (\d+)$", _first_text(groups, _KILLS), re.MULTILINE)
    return int(found[1]) if found else None


def _first_text(groups: Path, names: tuple[str, ...]) -> str:
    for name in names:
        with contextlib.suppress(OSError):
            return (groups / name).read_text()
    return ""
