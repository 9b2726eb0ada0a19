"""The resources of a server's processes, read from /proc. A server is named by its session: its first process."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_PROC = Path("/proc")
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
_CALM = 0.5  # cores; a server that still works off its queue takes all there are
_CALM_LOOK_S = 0.1


def members(session: int) -> list[int]:
    """Return the living processes of a session, and what they started in sessions of their own."""
    found = {session}
    parents_and_sessions = _all_processes()
    grows = True
    while grows:
        more = {process for process, origin in parents_and_sessions.items() if not found.isdisjoint(origin)}
        grows = not more <= found
        found |= more
    return sorted(found & parents_and_sessions.keys())


def _all_processes() -> dict[int, tuple[int, int]]:
    """Process → its parent and its session."""
    found = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = _fields(entry / "stat")
                found[int(entry.name)] = int(fields[1]), int(fields[3])
    return found


def listen_overflows() -> int:
    """Return how many connections the kernel has dropped since its start because a listener's queue was full."""
    names, values = (line.split() for line in (_PROC / "net" / "netstat").read_text().splitlines()[:2])
    return int(dict(zip(names, values, strict=True))["ListenOverflows"])


def pss_mib(session: int) -> float:
    """Return the memory of a session: each page that several processes share counts once, spread over them."""
    return sum(_pss_kib(process) for process in members(session)) / 1024


def cpu_s(session: int) -> float:
    """Return the CPU seconds that the living processes of a session have taken so far."""
    ticks = 0
    for process in members(session):
        with contextlib.suppress(OSError):
            fields = _fields(_PROC / str(process) / "stat")
            ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_A_SECOND


def main_threads_cpu_s(session: int) -> float:
    """Return the CPU seconds of the first thread of each process, which in our service is the event loop."""
    nanoseconds = 0
    for process in members(session):
        with contextlib.suppress(OSError):
            text = (_PROC / str(process) / "task" / str(process) / "schedstat").read_text()
            nanoseconds += int(text.split()[0])
    return nanoseconds / 1e9


def wait_until_calm(session: int, limit_s: float = 15.0) -> None:
    """Return when a server has worked off what was left in its queue."""
    gives_up_at = time.monotonic() + limit_s
    while time.monotonic() < gives_up_at:
        before = cpu_s(session)
        time.sleep(_CALM_LOOK_S)
        if cpu_s(session) - before < _CALM * _CALM_LOOK_S:
            return


def end(session: int) -> None:
    """Kill whatever is left of a session."""
    for process in members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@contextlib.contextmanager
def standing_still(session: int) -> Iterator[None]:
    """Stop a server for a moment: some of them are busy without requests."""
    _tell(session, signal.SIGSTOP)
    try:
        yield
    finally:
        _tell(session, signal.SIGCONT)


def _tell(session: int, number: signal.Signals) -> None:
    for process in members(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)


def _fields(stat: Path) -> list[str]:
    """The fields after the process's name, which may contain anything: state, parent, group, session, …"""
    return stat.read_text().rpartition(")")[2].split()


def _pss_kib(process: int) -> int:
    with contextlib.suppress(OSError):
        for line in (_PROC / str(process) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
