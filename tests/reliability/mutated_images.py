"""Damaged images, one request each: the server answers every one with 200 or a documented 4xx, in bounded memory.

`python -m tests.reliability.mutated_images [COUNT]` prints a table by format; COUNT is 20,000 by default.
"""

import http.client
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reliability.answers import Answer, Reference, tracebacks, without_timings
from tests.reliability.image_mutations import FORMATS, mutated_image
from tests.reliability.processes import MEBIBYTE, PATIENT, peak_bytes, usage_of
from tests.reliability.report import Report, counted, finish
from tests.service.conftest import image
from tests.support.model_files.tiny_model import LABELS, write_tiny_model
from tests.support.servers.served import Served, serving

COUNT = 20_000
CLIENTS = 4
_ROUND = 100  # images between two checks of the server
_BOUNDARY = b"boundary-of-reliability"
# Of 26 million pixels with 10 bytes each (docs/configuration.md), and of buffers beside them, for each engine thread.
MOST_GROWTH_BYTES = 320 * MEBIBYTE
_ROUTES = ("/classify", "/classify", "/classify", "/embed", "/explain", "/predictions/tiny", "/hf/tiny")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one image got."""

    name: str  # of the format
    status: int  # 0: no response
    fault: str | None


def run(count: int) -> Report:
    """Send damaged images to a server of two processes, and return the counts."""
    report = Report("mutated-images", f"{counted(count)} damaged images", ("format", "images", *_COLUMNS))
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        write_tiny_model(models)
        with serving(models, "--processes", 2, "--engine-threads", 1, patch=PATIENT, fails=True) as served:
            _send_all(served, count, report)
        report.broken += tracebacks(served)
    return report


_COLUMNS = ("200", "400", "413", "415", "422", "other")


def _send_all(served: Served, count: int, report: Report) -> None:
    reference, workers = Reference(served, image((255, 0, 0)), "red"), served.workers()
    before, peaks = usage_of(served), {pid: peak_bytes(pid) for pid in workers}
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(CLIENTS) as pool:
        for first in range(0, count, _ROUND):
            shares = [range(first + client, min(count, first + _ROUND), CLIENTS) for client in range(CLIENTS)]
            outcomes += itertools.chain.from_iterable(pool.map(lambda cases: list(_send(served, cases)), shares))
            report.broken += filter(None, (reference.fault(),))
    after, growth = usage_of(served), max(peak_bytes(pid) - peaks[pid] for pid in workers)
    report.rows = list(_rows(outcomes))
    report.facts = [
        f"A good image after each {_ROUND} had its usual answer. No worker ended.",
        f"Memory of all processes (PSS): {before.pss_bytes / MEBIBYTE:.0f} MiB before, "
        f"{after.pss_bytes / MEBIBYTE:.0f} MiB after; "
        f"the peak of a worker was {growth / MEBIBYTE:.0f} MiB above its start.",
    ]
    report.broken += sorted({outcome.fault for outcome in outcomes if outcome.fault is not None})
    report.check(len(outcomes) == count, f"{count - len(outcomes)} images have no outcome")
    report.check(served.workers() == workers, "a worker has ended")
    report.check(growth < MOST_GROWTH_BYTES, f"the memory of a worker grew by {growth / MEBIBYTE:.0f} MiB")


def _send(served: Served, cases: range) -> Iterator[Outcome]:
    connection = served.connect()
    for case in cases:
        name, content = mutated_image(case)
        try:
            yield _outcome(name, _answer(connection, case, content), case)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            yield Outcome(name, 0, f"case {case}: {type(error).__name__} instead of a response")
    connection.close()


def _answer(connection: http.client.HTTPConnection, case: int, content: bytes) -> Answer:
    path, headers, body = _ROUTES[case % len(_ROUTES)], {"accept": "application/json"}, content
    if case % 5 == 0:
        headers["content-type"] = f"multipart/form-data; boundary={_BOUNDARY.decode()}"
        name = b"data" if path.startswith("/predictions") else b"file"
        head = b'--%b\r\nContent-Disposition: form-data; name="%b"; filename="a"\r\n\r\n' % (_BOUNDARY, name)
        body = head + content + b"\r\n--%b--\r\n" % _BOUNDARY
    connection.request("POST", path, body, headers)
    response = connection.getresponse()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def _outcome(name: str, answer: Answer, case: int) -> Outcome:
    fault = answer.fault()
    if fault is None and answer.status == 200:
        fault = _fault_of_result(without_timings(answer.document()))
    elif fault is None and not 400 <= answer.status < 500:
        fault = f"status {answer.status}"
    return Outcome(name, answer.status, fault and f"case {case}: {fault}")


def _fault_of_result(document: Any) -> str | None:
    """Return what is wrong with the result of a damaged image that could be decoded."""
    if "embedding" in document:
        values = document["embedding"]
        return None if len(values) == 3 and all(0 <= value <= 1 for value in values) else f"embedding {values}"
    entries = document.get("predictions", document) if isinstance(document, dict) else document
    pairs = list(entries.items()) if isinstance(entries, dict) else [_pair(entry) for entry in entries]
    is_right = bool(pairs) and all(label in LABELS and 0 <= score <= 1 for label, score in pairs)
    return None if is_right else f"predictions {entries}"


def _pair(entry: dict[str, Any]) -> tuple[str, float]:
    return entry["label"], entry["probability"] if "probability" in entry else entry["score"]


def _rows(outcomes: list[Outcome]) -> Iterator[tuple[str, ...]]:
    for name in (*FORMATS, "all"):
        statuses = Counter(outcome.status for outcome in outcomes if name in (outcome.name, "all"))
        counts = [statuses.pop(int(column), 0) for column in _COLUMNS[:-1]]
        yield name, *map(counted, (sum(counts) + statuses.total(), *counts, statuses.total()))


if __name__ == "__main__":
    sys.exit(finish(run(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)))
