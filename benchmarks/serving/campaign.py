"""Everything in its order: footprints, duels, overload; each part is stored as soon as it is known."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import overload
from benchmarks.serving.duel import Arena, Match, Pair, contenders, duel, footprint, median_rate, raw_runtime
from benchmarks.serving.progress import log
from benchmarks.serving.reports.results import Results
from benchmarks.serving.reports.table import render
from benchmarks.serving.servers.servers import PEERS, SERVICE, ServerFailed
from benchmarks.serving.servers.workload import NotThere, Workload, make_workload

AGAINST = " against "
MATCHES = ("resnet20 fp32", "resnet50 fp32", "resnet20 int8", "resnet50 int8", "resnet50 int8 against fp32")
COLUMNS = (1, 2, 4, 8, 32, 64)
_SCAN_PAIRS = 2
_START_S = 8  # of a server, about, its check included
_TURN_EXTRA_S = 0.7
_FINALISTS = 1.6  # peers a column that get all pairs, about


@dataclass(frozen=True, slots=True)
class Plan:
    """The measurements to make."""

    matches: Sequence[str]
    peers: Sequence[str]
    columns: Sequence[int]
    pairs: int
    seconds: int
    overload: Sequence[str]  # workloads
    overload_peers: Sequence[str]
    overload_rounds: int
    overload_seconds: int

    def estimate_s(self) -> float:
        """Return about how long it takes, without the installing of peers and the exporting of models."""
        turn = 2 * (self.seconds + _TURN_EXTRA_S)
        scan = min(_SCAN_PAIRS, self.pairs) * (len(self.columns) * turn + self.seconds) + 2 * _START_S
        rest = max(0, self.pairs - _SCAN_PAIRS) * len(self.columns) * turn * min(_FINALISTS, len(self.peers))
        one = len(self.peers) * scan + rest + (1 + len(self.peers)) * (_START_S + 2 * self.seconds)
        beyond = self.overload_rounds * (_START_S + 5.5 * self.overload_seconds)
        slow = self.overload_rounds * (self.overload_seconds + overload.SLOW_S)
        return len(self.matches) * one + len(self.overload) * (beyond * (1 + len(self.overload_peers)) + slow)


class Campaign:
    """One run of the benchmark."""

    def __init__(self, plan: Plan, arena: Arena, results: Results, photos: Path | None, page: Path) -> None:
        self._plan = plan
        self._arena = arena
        self._results = results
        self._photos = photos
        self._page = page
        self._workloads: dict[str, Workload | NotThere] = {}
        self.left_out: list[str] = []

    def run(self) -> None:
        """Measure everything of the plan that can be had here."""
        for name in self._plan.matches:
            self._try(name, self._match)
        for name in self._plan.overload:
            self._try(name, self._overload)

    def _try(self, name: str, part: Callable[[str], None]) -> None:
        try:
            part(name)
        except NotThere as reason:
            self._leave_out(f"{name}: {reason}")
        self._page.write_text(render(self._results))

    def _leave_out(self, line: str) -> None:
        log(f"left out: {line}")
        self.left_out.append(line)

    def _match(self, name: str) -> None:
        ours, _, theirs = name.partition(AGAINST)
        match = Match(name, self._workload(ours), self._workload(f"{ours.split()[0]} {theirs}" if theirs else ours))
        peers = self._footprints(match)
        with raw_runtime(match.ours, self._arena.cache) as raw:

            def fight(columns: dict[str, Sequence[int]], pairs: int) -> dict[str, dict[int, list[Pair]]]:
                fought = {}
                for peer in [peer for peer in peers if columns[peer] and pairs > 0]:
                    log(f"{name}: {pairs} pairs against {PEERS[peer].name} at c = {', '.join(map(str, columns[peer]))}")
                    try:
                        fought[peer] = duel(
                            self._arena, match, peer, columns[peer], pairs=pairs, seconds=self._plan.seconds, raw=raw
                        )
                    except ServerFailed as reason:
                        self._leave_out(f"{name}: {reason}")
                return fought

            scan = fight(dict.fromkeys(peers, self._plan.columns), min(_SCAN_PAIRS, self._plan.pairs))
            self._keep(name, scan, {})
            rates = {peer: {c: median_rate(pairs) for c, pairs in columns.items()} for peer, columns in scan.items()}
            chosen: dict[str, Sequence[int]] = {**dict.fromkeys(peers, ()), **contenders(rates)}
            self._keep(name, scan, fight(chosen, self._plan.pairs - _SCAN_PAIRS))

    def _keep(self, name: str, scan: dict[str, dict[int, list[Pair]]], final: dict[str, dict[int, list[Pair]]]) -> None:
        for peer, columns in scan.items():
            more = final.get(peer, {})
            self._results.keep_pairs(name, peer, {c: pairs + more.get(c, []) for c, pairs in columns.items()})

    def _footprints(self, match: Match) -> list[str]:
        """Measure what each server takes of the machine; return the peers that start and answer right."""
        kinds = [(SERVICE, match.ours), *((PEERS[peer], match.theirs) for peer in self._plan.peers)]
        failed = set()
        for kind, workload in kinds:
            log(f"{workload.name}: memory of {kind.name}")
            try:
                taken = footprint(self._arena, kind, workload, self._plan.seconds)
                self._results.keep_footprint(workload.name, kind.name, taken)
            except ServerFailed as reason:
                self._leave_out(f"{match.name}: {reason}")
                failed.add(kind.name)
        if SERVICE.name in failed:
            raise NotThere("our service does not serve it")
        return [peer for peer in self._plan.peers if PEERS[peer].name not in failed]

    def _overload(self, name: str) -> None:
        workload = self._workload(name)
        for kind in (SERVICE, *(PEERS[peer] for peer in self._plan.overload_peers)):
            rounds = []
            for number in range(self._plan.overload_rounds):
                log(f"overload, {name}: {kind.name}, round {number + 1} of {self._plan.overload_rounds}")
                try:
                    rounds.append(overload.measure(self._arena, kind, workload, self._plan.overload_seconds))
                except ServerFailed as reason:
                    self._leave_out(f"overload, {name}: {reason}")
            if rounds:
                self._results.keep_overload(name, kind.name, rounds)

    def _workload(self, name: str) -> Workload:
        """Return a workload, made once. Raises NotThere."""
        if name not in self._workloads:
            network, precision = name.split()
            try:
                self._workloads[name] = make_workload(network, precision, self._arena.cache, self._photos)
            except NotThere as reason:
                self._workloads[name] = reason
        made = self._workloads[name]
        if isinstance(made, NotThere):
            raise made
        return made


def known(names: Iterable[str], all_names: Sequence[str], what: str) -> list[str]:
    """Return the names if they are all known. Raises ValueError with one line."""
    names = list(names)
    for name in names:
        if name not in all_names:
            raise ValueError(f"there is no {what} {name!r}; there are: {', '.join(all_names)}")
    return names
