"""RESULTS.md: the stored cells as tables. Nothing is computed here that is not also in the JSON beside it."""

import functools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence

from benchmarks.serving.clients.figures import Spread, ratios, spread
from benchmarks.serving.duel import Pair, median_rate
from benchmarks.serving.overload import OTHER_FACTORS
from benchmarks.serving.reports.results import Json, Results
from benchmarks.serving.servers.servers import OURS, PEERS, SERVICE
from benchmarks.serving.wrk import Measured

# What the columns 1, 8, 32 and 64 are meant to reach, as the median ratio to the best peer.
GOALS = {
    "resnet20 fp32": {1: 1.3, 2: 1.0, 4: 1.0, 8: 1.8, 32: 1.05, 64: 1.05},
    "resnet50 fp32": dict.fromkeys((1, 2, 4, 8, 32, 64), 1.0),
}
_HEAD = """# Benchmarks of serving

Written by `make bench-serving`; the samples behind every figure are in `results.json` beside this file. Requests a
second count answers with status 200 and the expected labels only. Figures are medians of alternating pairs (ours, peer,
ours, peer …), with quartiles in brackets; a ratio is taken pair by pair, so that what disturbed both halves cancels
out. Compare within one table only. A peer that stays below 80% of the best one of a column after the first two pairs
gets no more of them there.
"""


def render(results: Results) -> str:
    """Return the whole page."""
    parts = [_HEAD, "## Runs\n", *_runs(results)]
    for match in sorted(results.throughput, key=_order):
        parts += [f"## {match}\n", _Throughput(results, match).render(), _footprints(results, *_workloads_of(match))]
    for workload, servers in sorted(results.overload.items(), key=lambda item: _order(item[0])):
        parts += [f"## Overload, {workload}\n", _overload(servers)]
    parts += [
        "## How each server was run\n",
        *(f"- {kind.name}: {kind.how}" for kind in (SERVICE, *PEERS.values())),
        "",
    ]
    return "\n".join(parts)


def _order(name: str) -> tuple[bool, bool, str]:
    return "against" in name, "int8" in name, name


def _runs(results: Results) -> Iterable[str]:
    for name, origin in results.used_origins().items():
        versions = ", ".join(f"{library} {number}" for library, number in origin["versions"].items())
        yield (
            f"- {name}: commit {origin['commit']}; {origin['processor']}, {origin['cores']} cores, {origin['system']}; "
            f"load average at the start {origin['load_at_start']}; load by {origin['load_by']}; {versions}; "
            f"`{origin['command']}`"
        )
    yield ""


class _Throughput:
    """The table of one match: a row is a title and what it says of a column."""

    def __init__(self, results: Results, match: str) -> None:
        self._results = results
        self._match = match

    def render(self) -> str:
        columns = self._results.columns(self._match)
        rows: list[tuple[str, Callable[[int], str]]] = [
            (OURS, lambda column: _rates([pair.ours for pair in self._all(column)])),
            *(
                (PEERS[peer].name, functools.partial(self._peer, peer))
                for peer in self._results.throughput[self._match]
            ),
            ("raw ONNX Runtime", lambda column: _spread(spread([pair.raw for pair in self._all(column)]), _number)),
            ("**best peer**", lambda column: PEERS[self.best(column)].name),
            ("**ratio to it**", lambda column: _ratio(self._duel(column))),
            ("of raw ONNX Runtime", self._of_raw),
            ("p50 / p99 ms, ours", lambda column: _latencies([pair.ours for pair in self._duel(column)])),
            ("p50 / p99 ms, best peer", lambda column: _latencies([pair.theirs for pair in self._duel(column)])),
            ("wrong, 503, failed: ours", lambda column: _errors([pair.ours for pair in self._all(column)])),
            ("load generator, cores", lambda column: _generator([pair.ours for pair in self._duel(column)])),
        ]
        if self._match in GOALS:
            goals = GOALS[self._match]
            rows.insert(len(rows) - 5, ("goal", lambda column: f"{goals[column]:.2f}" if column in goals else "–"))
        cells = [[title, *(says(column) for column in columns)] for title, says in rows]
        return _table(["requests a second", *(f"c = {column}" for column in columns)], cells)

    def best(self, column: int) -> str:
        """Return the peer with the highest median rate."""
        return max(PEERS, key=lambda peer: median_rate(self._results.pairs(self._match, peer, column)))

    def _duel(self, column: int) -> list[Pair]:
        return self._results.pairs(self._match, self.best(column), column)

    def _all(self, column: int) -> list[Pair]:
        return [pair for peer in PEERS for pair in self._results.pairs(self._match, peer, column)]

    def _peer(self, peer: str, column: int) -> str:
        return _rates([pair.theirs for pair in self._results.pairs(self._match, peer, column)])

    def _of_raw(self, column: int) -> str:
        return _spread(ratios((pair.ours.rate, pair.raw) for pair in self._all(column)), "{:.2f}".format)


def _rates(measured: Sequence[Measured]) -> str:
    if not measured:
        return "–"
    mistakes = sum(each.wrong + each.refused + each.failed for each in measured)
    return _spread(spread([each.rate for each in measured]), _number) + (f", {mistakes} errors" if mistakes else "")


def _ratio(pairs: Sequence[Pair]) -> str:
    return (
        f"**{_spread(ratios((pair.ours.rate, pair.theirs.rate) for pair in pairs), '{:.2f}'.format)}** n={len(pairs)}"
    )


def _latencies(measured: Sequence[Measured]) -> str:
    p50_s = statistics.median(each.p50_s for each in measured)
    p99_s = statistics.median(each.p99_s for each in measured)
    return f"{p50_s * 1000:.3g} / {p99_s * 1000:.3g}"


def _errors(measured: Sequence[Measured]) -> str:
    return f"{sum(m.wrong for m in measured)}, {sum(m.refused for m in measured)}, {sum(m.failed for m in measured)}"


def _generator(measured: Sequence[Measured]) -> str:
    return f"{statistics.median(each.generator_cpu for each in measured):.2f}"


def _workloads_of(match: str) -> tuple[str, str]:
    ours, _, theirs = match.partition(" against ")
    return ours, f"{ours.split()[0]} {theirs}" if theirs else ours


def _footprints(results: Results, ours: str, theirs: str) -> str:
    found = {SERVICE.name: results.footprints.get(ours, {}).get(SERVICE.name)}
    found |= {kind.name: results.footprints.get(theirs, {}).get(kind.name) for kind in PEERS.values()}
    rows = [
        [name, f"{cell['pss_mib']:.0f}", f"{cell['idle_cpu']:.3f}"] for name, cell in found.items() if cell is not None
    ]
    return _table(["alone on the machine", "PSS under load, MiB", "CPU when idle, cores"], rows) if rows else ""


_SHARE, _MS, _COUNT, _NUMBER = "{:.1%}", "{:.0f} ms", "{:.0f}", "{:.3g}"
# Key of a round → what it is called, how it is written, and by which factor, for the reader.
_OVERLOAD_ROWS: dict[str, tuple[str, str, float]] = {
    "peak": ("peak, right answers a second", _NUMBER, 1),
    "goodput_share": ("goodput at 4x, of the peak", _SHARE, 1),
    "goodput_of_cpu_left": ("… of the peak that the CPU left by the generator allows", _SHARE, 1),
    "ceiling": ("highest possible at this cost of a refusal", _SHARE, 1),
    "refusal_cost": ("CPU of a refusal, of an answer's", "{:.2%}", 1),
    "refusal_cpu": ("CPU of a refusal, µs", "{:.0f}", 1e6),
    "refusal_p99": ("503 p99", _MS, 1000),
    "refusal_again_p99": ("503 p99 on connections refused within 0.25 s", _MS, 1000),
    "refusals_again_share": ("503s on such connections", _SHARE, 1),
    "busy_p99": ("200 p99 at 0.8x", _MS, 1000),
    "admitted_p99": ("200 p99 at 4x", _MS, 1000),
    "recovery": ("normal again after", _MS, 1000),
    "retry_after_least": ("Retry-After, least, s", _COUNT, 1),
    "retry_after_most": ("Retry-After, most, s", _COUNT, 1),
    "retry_after_missing": ("503s without Retry-After", _COUNT, 1),
    "wrong": ("200s with wrong labels", _COUNT, 1),
    "failed": ("other statuses, broken or unanswered", _COUNT, 1),
    "generator_cpu": ("load generator, cores", "{:.2f}", 1),
    "send_lag_p99": ("sent late by the generator, p99", "{:.1f} ms", 1000),
    "late_share": ("due while all 2,048 connections were busy", _SHARE, 1),
    "listen_overflows": ("connections dropped by the kernel (ListenOverflows)", _COUNT, 1),
    "probe_worst": ("liveness probe on a new connection, slowest", _MS, 1000),
    **{
        f"{key}_at_{factor:g}x": (f"{factor:g}x: {title}", form, unit)
        for factor in OTHER_FACTORS
        for key, title, form, unit in (
            ("goodput_share", "goodput, of the peak", _SHARE, 1),
            ("goodput_of_cpu_left", "… of the peak that the CPU left by the generator allows", _SHARE, 1),
            ("admitted_p99", "200 p99", _MS, 1000),
            ("refusal_p99", "503 p99", _MS, 1000),
            ("recovery", "normal again after", _MS, 1000),
            ("failed", "other statuses, broken or unanswered", _COUNT, 1),
            ("probe_worst", "liveness probe, slowest", _MS, 1000),
            ("generator_cpu", "load generator, cores", "{:.2f}", 1),
            ("late_share", "due while all 2,048 connections were busy", _SHARE, 1),
        )
    },
    "insisting_goodput_share": ("256 clients that retry at once: goodput, of the peak", _SHARE, 1),
    "insisting_refusals_per_s": ("… 503s a second", _COUNT, 1),
    "insisting_wrong": ("… 200s with wrong labels", _COUNT, 1),
    "insisting_failed": ("… other statuses, broken or unanswered", _COUNT, 1),
    "insisting_generator_cpu": ("… load generator, cores", "{:.2f}", 1),
    "slow_p99_ratio": ("500 slow senders: p99 of good traffic at 0.5x, of its p99 without them", "{:.2f}", 1),
    "slow_good_failures": ("… good requests that failed", _COUNT, 1),
    "slow_heads_last": ("… slowest head closed after, s", "{:.1f}", 1),
    "slow_bodies_last": ("… slowest body closed after, s", "{:.1f}", 1),
    "slow_never_closed": ("… never closed", _COUNT, 1),
}


def _overload(servers: dict[str, Json]) -> str:
    names = [kind.name for kind in (SERVICE, *PEERS.values()) if kind.name in servers]
    rows = []
    for key, (title, form, factor) in _OVERLOAD_ROWS.items():
        cells = [_median_of_rounds(servers[name]["rounds"], key, form, factor) for name in names]
        if any(cells):
            rows.append([title, *cells])
    counts = {name: len(servers[name]["rounds"]) for name in names}
    return _table(["", *(f"{name} (rounds: {counts[name]})" for name in names)], rows)


def _median_of_rounds(rounds: Sequence[dict[str, float]], key: str, form: str, factor: float) -> str:
    values = [each[key] for each in rounds if key in each and not math.isnan(each[key])]
    if not values:
        return ""
    middle = statistics.median(values) * factor
    return "never" if math.isinf(middle) else form.format(middle)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _spread(values: Spread, write: Callable[[float], str]) -> str:
    return f"{write(values.median)} ({write(values.lower)}–{write(values.upper)})" if values.count else "–"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
