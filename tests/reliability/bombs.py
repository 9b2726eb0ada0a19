"""JSON and multipart bombs: bodies that cost much more than they weigh where no limit holds, sent to every path.

`python -m tests.reliability.bombs` prints a table by path. Each gets a documented refusal or an answer, and reading it
takes at most ten times its size in memory.
"""

import gzip
import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.reliability.answers import BadFraming, Reference, Wire, tracebacks
from tests.reliability.good_requests import BOUNDARY, JSON, Operation, Request, operations
from tests.reliability.processes import MEBIBYTE, PATIENT, cpu_s, peak_bytes, reset_peak
from tests.reliability.report import Report, counted, finish
from tests.service.api.parsing.test_json_body import HOSTILE
from tests.service.api.test_hostile_bodies import OF_THESE_ROUTES
from tests.service.conftest import image
from tests.support.model_files.tiny_model import write_tiny_model
from tests.support.servers.served import Served, serving

_LARGE = 16 * MEBIBYTE  # below the limit of an image, so that it is read
_START = b"--" + BOUNDARY
_PART = _START + b'\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
_END = b"\r\n" + _START + b"--\r\n"
_TIMES = 10  # the most memory for a body, as a multiple of its size (SECURITY.md)
_BESIDE_BYTES = 96 * MEBIBYTE  # for buffers, and for what a decoder takes

Make = Callable[[], bytes]

FORMS: dict[str, Make] = {
    "parts without content": lambda: (_START + b"\r\n\r\n\r\n") * (_LARGE // 40) + _END,
    "files without content": lambda: (_PART + b"\r\n") * (_LARGE // 100) + _END,
    "a part with a thousand headers": lambda: _START + b"\r\n" + b"X-A: b\r\n" * 1000 + b"\r\nx" + _END,
    "a header of one megabyte": lambda: _START + b"\r\nX-A: " + b"b" * MEBIBYTE + b"\r\n\r\nx" + _END,
    "a name of one megabyte": lambda: _PART.replace(b'"a"', b'"' + b"a" * MEBIBYTE + b'"') + b"x" + _END,
    "parameters of a header": lambda: _PART.replace(b"; filename", b"; a=b" * 100_000 + b"; filename") + b"x" + _END,
    "a preamble": lambda: b"x" * _LARGE + b"\r\n" + _PART + b"x" + _END,
    "an epilogue": lambda: _PART + b"x" + _END + b"x" * _LARGE,
    "almost boundaries": lambda: _PART + (b"\r\n--" + BOUNDARY[:-1]) * (_LARGE // 27) + _END,
    "line ends": lambda: _PART + b"\r\n" * (_LARGE // 2) + _END,
    "a form in a form": lambda: _PART + (b"--b\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n") * 100_000 + _END,
    "no end": lambda: _PART + b"x" * _LARGE,
}
DOCUMENTS: dict[str, Make] = {**HOSTILE, **OF_THESE_ROUTES}
_ZEROS = 256 * MEBIBYTE
_JSON_TYPE = ((b"Content-Type", JSON.encode()),)
_FORM_TYPE = ((b"Content-Type", b"multipart/form-data; boundary=" + BOUNDARY),)
_MOST_CPU_S = 5.0  # for one body


@dataclass(frozen=True, slots=True)
class Bomb:
    """A body with the headers that make it dangerous."""

    name: str
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes = field(repr=False)
    unpacked_bytes: int
    is_for_all: bool  # also for operations that take no body


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one bomb got."""

    path: str
    status: int  # 0: no response
    growth_bytes: int
    cpu_s: float
    fault: str | None


def bombs() -> Iterator[Bomb]:
    """Yield every bomb; the first two of each kind are for all operations."""
    for number, (name, make) in enumerate(DOCUMENTS.items()):
        yield _bomb(f"JSON, {name}", _JSON_TYPE, make(), is_for_all=number < 2)
    for number, (name, make) in enumerate(FORMS.items()):
        yield _bomb(f"form, {name}", _FORM_TYPE, make(), is_for_all=number < 2)
    packed = (*_JSON_TYPE, (b"Content-Encoding", b"gzip"))
    nested = HOSTILE["nested a thousand times in parameters"]()
    yield Bomb("gzip, zeros", packed, _packed_zeros(), 64 * MEBIBYTE, False)
    yield Bomb("gzip, nested", packed, gzip.compress(nested, 1), len(nested), False)


def _bomb(name: str, headers: tuple[tuple[bytes, bytes], ...], body: bytes, *, is_for_all: bool) -> Bomb:
    return Bomb(name, headers, body, len(body), is_for_all)


def _packed_zeros() -> bytes:
    return gzip.compress(bytes(MEBIBYTE), 9) * (_ZEROS // MEBIBYTE)


def run(most: int | None = None) -> Report:
    """Send each bomb (or only the first ones) to every path, and return the counts by path."""
    columns = ("path", "bombs", "2xx", "4xx", "503", "other", "peak, MiB", "CPU, s")
    report = Report("bombs", "JSON and multipart bombs", columns)
    with tempfile.TemporaryDirectory() as folder:
        write_tiny_model(Path(folder))
        with serving(Path(folder), "--processes", 1, "--log", "off", patch=PATIENT, fails=True) as served:
            known = operations(served.ask("GET", "/openapi.json")[1])
            by_path = {(one.method, one.template): one for one in known}
            outcomes = list(_send_all(served, list(by_path.values()), most, report))
        report.broken += tracebacks(served)
    report.rows = list(_rows(outcomes))
    report.facts.append(
        "Peak: memory of the worker while it read one body, above its memory before. CPU: the most CPU seconds for one "
        "body. A good image after each bomb had its usual answer. No worker ended."
    )
    report.broken += sorted({outcome.fault for outcome in outcomes if outcome.fault is not None})
    return report


def _send_all(served: Served, known: list[Operation], most: int | None, report: Report) -> Iterator[Outcome]:
    reference, workers = Reference(served, image((255, 0, 0)), "red"), served.workers()
    for bomb in itertools.islice(bombs(), most):
        for operation in known:
            if operation.media_type or bomb.is_for_all:
                yield _send(served, workers[0], operation, bomb)
        report.broken += filter(None, (reference.fault(),))
    report.check(served.workers() == workers, "a worker has ended")


def _send(served: Served, worker: int, operation: Operation, bomb: Bomb) -> Outcome:
    place, status = f"{operation.method} {operation.template}", 0
    reset_peak(worker)
    memory, cpu = peak_bytes(worker), cpu_s(worker)
    headers = ((b"Host", b"localhost"), *bomb.headers)
    request = Request(operation.method.encode(), operation.path.encode(), headers, bomb.body)
    try:
        with Wire(served, timeout_s=120) as wire:
            wire.send(request.wire())
            answer = wire.answer()
        status = 0 if answer is None else answer.status
        fault = "no response" if answer is None else answer.fault()
    except (TimeoutError, BadFraming) as error:
        fault = repr(error)
    growth, took_s = peak_bytes(worker) - memory, cpu_s(worker) - cpu
    if fault is None and growth > _TIMES * bomb.unpacked_bytes + _BESIDE_BYTES:
        fault = f"{growth / MEBIBYTE:.0f} MiB for a body of {bomb.unpacked_bytes / MEBIBYTE:.1f} MiB"
    if fault is None and took_s > _MOST_CPU_S:
        fault = f"{took_s:.1f} CPU seconds"
    return Outcome(place, status, growth, took_s, fault and f"{place}, {bomb.name}: {fault}")


def _rows(outcomes: list[Outcome]) -> Iterator[tuple[str, ...]]:
    for path in (*dict.fromkeys(outcome.path for outcome in outcomes), "all"):
        of_path = [outcome for outcome in outcomes if path in (outcome.path, "all")]
        kinds = Counter(503 if outcome.status == 503 else outcome.status // 100 for outcome in of_path)
        counts = [kinds.pop(kind, 0) for kind in (2, 4, 503)]
        peak = max(outcome.growth_bytes for outcome in of_path) / MEBIBYTE
        longest_s = max(outcome.cpu_s for outcome in of_path)
        yield path, *map(counted, (len(of_path), *counts, kinds.total(), peak)), f"{longest_s:.2f}"


if __name__ == "__main__":
    sys.exit(finish(run(int(sys.argv[1]) if len(sys.argv) > 1 else None)))
