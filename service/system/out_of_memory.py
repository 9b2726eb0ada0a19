"""A hint whether a killed process ran out of memory, from the counters of its control groups.

The sender of a SIGKILL is unknown to user space. A container's control group (v2 or v1) shows its memory limit and
how many processes the kernel has killed in it; outside containers both are missing.
"""

import contextlib
import itertools
import re
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from service.system.control_groups import groups_v1, groups_v2

_LIMITS = ("memory.max", "memory.limit_in_bytes")  # of v2 and v1
_KILLS = ("memory.events", "memory.oom_control")
_UNLIMITED = 2**60  # v1 writes a number near 2**63


def hint_at_memory(code: int, groups: Sequence[Path] | None = None) -> str:
    """Return advice for the report of a process that ended with this exit code, or an empty text.

    `groups` are the folders of the control groups that limit this process; None: find them.
    """
    if code != -signal.SIGKILL:
        return ""
    folders = [*groups_v2(), *groups_v1("memory")] if groups is None else groups
    if _kills(folders) == 0:
        return ""
    limit = _limit(folders)
    if limit is None:
        return " (probably for lack of memory: the kernel's log, dmesg, says so; set fewer --processes, or add memory)"
    return (
        f" (probably for lack of memory: the limit is {limit / 2**20:,.0f} MiB; raise it, with --memory of docker run "
        "or MEMORY_LIMIT of the compose file, or set fewer --processes)"
    )


def _limit(groups: Sequence[Path]) -> int | None:
    """Return the memory limit of this process in bytes; None without a limit."""
    texts = [text.strip() for text in _texts(groups, _LIMITS)]
    return min((int(text) for text in texts if text.isdigit() and int(text) < _UNLIMITED), default=None)


def _kills(groups: Sequence[Path]) -> int | None:
    """Return the number of kills in the innermost group that counts them; None if no group does."""
    found = [re.search(r"^oom_kill (\d+)$", text, re.MULTILINE) for text in _texts(groups, _KILLS)]
    return next((int(match[1]) for match in found if match), None)


def _texts(groups: Sequence[Path], names: tuple[str, ...]) -> Iterator[str]:
    for group, name in itertools.product(groups, names):
        with contextlib.suppress(OSError):
            yield (group / name).read_text()
