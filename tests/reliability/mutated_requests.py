"""Damaged HTTP requests to every operation of the OpenAPI document, then JSON and multipart bombs to every path.

No request gets a 500, none ends or blocks a process, and good requests between them have their usual answer.
`python -m tests.reliability.mutated_requests [COUNT]` prints a table by kind; COUNT is 20,000 by default.
"""

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.reliability.answers import Answer, BadFraming, Reference, Wire, tracebacks
from tests.reliability.good_requests import Operation, operations
from tests.reliability.processes import MEBIBYTE, PATIENT, usage_of
from tests.reliability.report import Report, counted, finish
from tests.reliability.request_mutations import KINDS, MARK, Case, mutated_request
from tests.service.conftest import image
from tests.support.model_files.tiny_model import write_tiny_model
from tests.support.servers.served import Served, serving

COUNT = 20_000
CLIENTS = 32
_BETWEEN = 100  # requests between two good ones
_ROUND = 2000
_UNFINISHED_S = 0.3  # without a response for as long, a damaged request probably lacks its end
_COLUMNS = ("2xx and 3xx", "4xx", "501, 505", "503", "closed", "500")
MOST_GROWTH_BYTES = 64 * MEBIBYTE  # of all processes; the bodies have at most a few hundred kilobytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one request got."""

    kind: str
    statuses: tuple[int, ...]  # empty: the server closed the connection
    fault: str | None

    @property
    def column(self) -> str:
        """Return the column of the table in which it counts."""
        status = self.statuses[0] if self.statuses else 0
        if status == 0:
            return "closed"
        if status in (501, 505):
            return "501, 505"
        return {2: "2xx and 3xx", 3: "2xx and 3xx", 4: "4xx"}.get(status // 100, "503" if status == 503 else "500")


def run(count: int) -> Report:
    """Send damaged requests to a server of two processes, and return the counts."""
    report = Report("mutated-requests", f"{counted(count)} damaged requests", ("damaged", "requests", *_COLUMNS))
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        write_tiny_model(models)
        with serving(models, "--processes", 2, "--log", "json", patch=PATIENT, fails=True) as served:
            known = list(operations(served.ask("GET", "/openapi.json")[1]))
            outcomes = list(_send_all(served, known, count, report))
        report.broken += tracebacks(served)
        report.check(not any(MARK in line for line in served.log), "the log has a part of a request")
    report.rows = list(_rows(outcomes))
    report.facts.insert(
        0, f"{len(known)} operations and media types; a good request after each {_BETWEEN} had its usual answer."
    )
    report.broken += sorted({outcome.fault for outcome in outcomes if outcome.fault is not None})
    return report


def _send_all(served: Served, known: list[Operation], count: int, report: Report) -> Iterator[Outcome]:
    reference, workers, before = Reference(served, image((255, 0, 0)), "red"), served.workers(), usage_of(served)
    with ThreadPoolExecutor(CLIENTS) as pool:
        for first in range(0, count, _ROUND):
            cases = [mutated_request(case, known) for case in range(first, min(count, first + _ROUND))]
            yield from pool.map(lambda numbered: _send(served, reference, *numbered), enumerate(cases, first))
    after = usage_of(served)
    growth = (after.pss_bytes - before.pss_bytes) / MEBIBYTE
    report.facts += [
        f"Memory of all processes (PSS): {before.pss_bytes / MEBIBYTE:.0f} MiB before, "
        f"{after.pss_bytes / MEBIBYTE:.0f} MiB after. "
        f"File descriptors: {before.descriptors} before, {after.descriptors} after.",
    ]
    report.check(served.workers() == workers, "a worker has ended")
    report.check(growth * MEBIBYTE < MOST_GROWTH_BYTES, f"memory grew by {growth:.0f} MiB")
    report.check(served.sample("resnet_requests_in_flight") == 0, "requests are still in flight")


def _send(served: Served, reference: Reference, number: int, case: Case) -> Outcome:
    answers: list[Answer] = []
    try:
        with Wire(served) as wire:
            wire.send(case.wire)
            _collect(wire, case, answers)
        fault = _fault(case, answers)
    except TimeoutError:
        fault = "no end of the connection"
    except BadFraming as error:
        fault = str(error)
    if fault is None and number % _BETWEEN == _BETWEEN - 1:
        fault = reference.fault()
    return Outcome(case.kind, tuple(one.status for one in answers), fault and f"case {number}, {case.kind}: {fault}")


def _collect(wire: Wire, case: Case, answers: list[Answer]) -> None:
    """Read all responses; the server has to close once the client has ended its side."""
    if not case.is_whole:
        wire.set_timeout(_UNFINISHED_S)
    try:
        first = wire.answer(is_head=case.is_head)
        if first is None:
            return
        answers.append(first)
    except TimeoutError:
        if case.is_whole:
            raise
    wire.end()
    wire.set_timeout(60)
    while (answer := wire.answer(is_head=case.is_head)) is not None:
        answers.append(answer)


def _fault(case: Case, answers: list[Answer]) -> str | None:
    faults = [fault for fault in (answer.fault() for answer in answers) if fault is not None]
    if faults or not case.is_whole:
        return faults[0] if faults else None
    if len(answers) != 1:
        return f"{len(answers)} responses to one request"
    (status,) = (answer.status for answer in answers)
    place = f"{case.operation.method} {case.operation.template}"
    return (
        None
        if status in case.operation.statuses
        else f"{status} is not documented for {place}: {answers[0].body[:200]!r}"
    )


def _rows(outcomes: list[Outcome]) -> Iterator[tuple[str, ...]]:
    for kind in (*KINDS, "all"):
        counts = Counter(outcome.column for outcome in outcomes if kind in (outcome.kind, "all"))
        yield kind, counted(counts.total()), *(counted(counts[column]) for column in _COLUMNS)


if __name__ == "__main__":
    sys.exit(finish(run(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)))
