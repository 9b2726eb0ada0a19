"""Throughput: ours against one peer, both running, measured in turns at each concurrency.

While ours is measured the peer stands still, as some peers are busy even without requests; ours keeps running while the
peer is measured, and what it takes when idle is part of the results. A turn begins when the other server has worked off
its queue.
"""

import contextlib
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.serving import wrk
from benchmarks.serving.servers import processes
from benchmarks.serving.servers.servers import PEERS, ROOT, SERVICE, Kind, Running, running
from benchmarks.serving.servers.workload import Workload
from benchmarks.serving.wrk import Measured

_WARM_UP_S = 1
_MEMORY_CONNECTIONS = 32
_CONTENDER = 0.8  # of the best peer's rate: below, a peer cannot be the best one of a column


@dataclass(frozen=True, slots=True)
class Match:
    """The two sides of a comparison: mostly the same file on both."""

    name: str
    ours: Workload
    theirs: Workload


@dataclass(frozen=True, slots=True)
class Pair:
    """Two turns, one after the other, and what ONNX Runtime without a server did shortly before."""

    ours: Measured
    theirs: Measured
    raw: float  # images a second


class Raw:
    """ONNX Runtime without a server, in a process of its own that waits for commands."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def rate(self, connections: int, seconds: float) -> float:
        """Return images a second: of one caller for a single connection, else at the machine's limit."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{'alone' if connections == 1 else 'busy'} {seconds}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


@contextlib.contextmanager
def raw_runtime(workload: Workload, cache: Path) -> Iterator[Raw]:
    """Run ONNX Runtime without a server, ready for commands, until the block ends."""
    images = cache / "pictures" / f"{workload.network}-{workload.precision}"
    command = [sys.executable, "-m", "benchmarks.serving.servers.raw_runtime", str(workload.model), str(images)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield Raw(process)
        finally:
            process.kill()


@dataclass(frozen=True, slots=True)
class Arena:
    """Where servers are started."""

    peers_python: Path
    cache: Path

    def running(self, kind: Kind, workload: Workload, *options: str) -> contextlib.AbstractContextManager[Running]:
        log = self.cache / "logs" / f"{kind.name.replace(' ', '-')}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        return running(kind, workload, self.peers_python, log, *options)


def duel(
    arena: Arena, match: Match, peer: str, columns: Sequence[int], *, pairs: int, seconds: int, raw: Raw
) -> dict[int, list[Pair]]:
    """Return the pairs of each column. Raises ServerFailed."""
    results: dict[int, list[Pair]] = {column: [] for column in columns}
    with arena.running(SERVICE, match.ours) as service, arena.running(PEERS[peer], match.theirs) as theirs:
        # The same requests to both: bare bytes, if that is what the peer takes.
        ours = replace(service, kind=replace(service.kind, takes_form=theirs.kind.takes_form))
        for server in (ours, theirs):
            wrk.measure(server, min(8, max(columns)), _WARM_UP_S)
        for _ in range(pairs):
            with processes.standing_still(theirs.session):
                raws = {alone: raw.rate(alone, seconds / 2) for alone in {min(column, 2) for column in columns}}
            for column in columns:
                with processes.standing_still(theirs.session):
                    mine = _turn(ours, column, seconds)
                results[column].append(Pair(mine, _turn(theirs, column, seconds), raws[min(column, 2)]))
    return results


def contenders(rates: dict[str, dict[int, float]]) -> dict[str, list[int]]:
    """Return the columns in which each peer may be the best: peer → column → median rate goes in."""
    columns = {column for of_peer in rates.values() for column in of_peer}
    best = {column: max(of_peer.get(column, 0.0) for of_peer in rates.values()) for column in columns}
    return {
        peer: [column for column, rate in of_peer.items() if rate >= _CONTENDER * best[column]]
        for peer, of_peer in rates.items()
    }


def median_rate(pairs: Sequence[Pair]) -> float:
    """Return the peer's median, 0 if it was not measured."""
    return statistics.median(pair.theirs.rate for pair in pairs) if pairs else 0.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """The resources that a server uses."""

    pss_mib: float  # under load
    idle_cpu: float  # cores, without requests


def footprint(arena: Arena, kind: Kind, workload: Workload, seconds: int) -> Footprint:
    """Return what a server takes when it is the only one that runs. Raises ServerFailed."""
    with arena.running(kind, workload) as server:
        seen: list[float] = []
        look = threading.Timer(seconds * 0.7, lambda: seen.append(processes.pss_mib(server.session)))
        look.start()
        wrk.measure(server, _MEMORY_CONNECTIONS, seconds)
        look.join()
        processes.wait_until_calm(server.session)
        before = processes.cpu_s(server.session)
        time.sleep(seconds)
        return Footprint(seen[0], (processes.cpu_s(server.session) - before) / seconds)


def _turn(server: Running, connections: int, seconds: int) -> Measured:
    measured = wrk.measure(server, connections, seconds)
    processes.wait_until_calm(server.session)
    return measured
