"""Memory, descriptors and threads of a server's processes, read from /proc."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support.servers.served import Served

MEBIBYTE = 1 << 20
# For a server on a machine with other work: a worker without CPU time for seconds is not one that hangs.
PATIENT = "import service.supervisor.supervisor\nservice.supervisor.supervisor._TICK_S = 10.0"


@dataclass(frozen=True, slots=True)
class Usage:
    """The sum over all processes of a server at one moment."""

    rss_bytes: int  # shared pages count in each process
    pss_bytes: int  # shared pages count once
    descriptors: int
    threads: int


def processes_of(served: Served) -> list[int]:
    """Return the ids of the supervisor and the workers."""
    return [served.process.pid, *served.workers()]


def usage_of(served: Served) -> Usage:
    """Return what the server uses now; a process that ends meanwhile does not count."""
    found = [one for pid in processes_of(served) for one in _usage(pid)]
    return Usage(*(sum(column) for column in zip(*found, strict=True)))


def _usage(pid: int) -> Iterator[tuple[int, int, int, int]]:
    with contextlib.suppress(OSError):
        memory = Path(f"/proc/{pid}/smaps_rollup").read_text()
        descriptors = len(os.listdir(f"/proc/{pid}/fd"))
        threads = len(os.listdir(f"/proc/{pid}/task"))
        yield _kibibytes(memory, "Rss"), _kibibytes(memory, "Pss"), descriptors, threads


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process, to a hundredth."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """Return the largest resident memory that a process ever had, or has had since `reset_peak`."""
    return _kibibytes(Path(f"/proc/{pid}/status").read_text(), "VmHWM")


def reset_peak(pid: int) -> None:
    """Let the peak of a process begin at its present memory."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def _kibibytes(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None, f"no {name} in {text}"
    return int(found[1]) * 1024
