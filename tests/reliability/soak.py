"""Hours of mixed requests at a low rate, every answer checked: does memory, do descriptors, threads or latency drift?

`HOURS=8 python -m tests.reliability.soak` prints a table of samples and slopes; without HOURS it runs for half an hour.
Requests are good and damaged images, batches, tensors, heat maps, clients that leave, and reloads.
"""

import base64
import contextlib
import itertools
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.reliability.answers import tracebacks, without_timings
from tests.reliability.good_requests import BOUNDARY, form_of, json_of
from tests.reliability.image_mutations import mutated_image
from tests.reliability.least_squares import Slope, slope_of
from tests.reliability.processes import MEBIBYTE, Usage, usage_of
from tests.reliability.report import Report, counted, finish
from tests.service.conftest import image
from tests.support.model_files.tiny_model import write_tiny_model
from tests.support.servers.client_threads import ClientThreads
from tests.support.servers.served import Served, serving

DEFAULT_HOURS = 0.5
REQUESTS_PER_S = 20.0  # low: the machine may have other work, and drift depends on the number of requests
INTERVAL_S = 60.0
_CLIENTS = 4
_WARM_UP = 0.1  # part of the samples that the slopes leave out
_MIB_PER_HOUR = 1.0  # the lower limit of a slope's interval may not exceed this
_MOST_ROWS = 12
_COLUMNS = ("minutes", "requests", "RSS, MiB", "PSS, MiB", "descriptors", "threads", "p99, ms", "wrong")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of request, with the statuses that it may get."""

    path: str
    body: Callable[[int], bytes]
    headers: dict[str, str]
    statuses: tuple[int, ...]
    is_constant: bool  # its answer is the same each time


@dataclass(frozen=True, slots=True)
class Sample:
    """One interval."""

    hours: float  # since the start
    requests: int
    usage: Usage
    p99_ms: float
    wrong: int


def _kinds() -> list[Kind]:
    form = {"content-type": f"multipart/form-data; boundary={BOUNDARY.decode()}"}
    as_json = {"content-type": "application/json", "accept": "application/json"}
    red, large = image((255, 0, 0)), image((0, 0, 255), "PNG", (1600, 1200))
    documents = {path: json.dumps(json_of(path)).encode() for path in ("/classify/batch", "/v1/embeddings", "/hf/tiny")}
    tensor = json.dumps(json_of("/v2/models/tiny/infer")).encode()
    return [
        Kind("/classify", lambda _: red, {}, (200,), True),
        Kind("/classify", lambda _: large, {}, (200,), True),
        Kind("/classify", lambda _: form_of("/classify"), form, (200,), True),
        Kind("/classify", lambda number: mutated_image(number)[1], {}, (200, 400, 413, 415, 422), False),
        Kind("/embed", lambda _: red, {"accept": "application/json"}, (200,), True),
        Kind("/explain", lambda _: red, {"accept": "application/json"}, (200,), True),
        Kind("/v2/models/tiny/infer", lambda _: tensor, as_json, (200,), True),
        *(Kind(path, lambda _, body=body: body, as_json, (200,), True) for path, body in documents.items()),  # type: ignore[misc]
        Kind("/predictions/tiny", lambda _: red, {}, (200,), True),
        Kind("/nothing", lambda _: base64.b64encode(red), {}, (404,), False),
    ]


class Clients(ClientThreads):
    """Threads with kept connections that send requests at a fixed rate in total and check every answer."""

    def __init__(self, served: Served, rate_per_s: float) -> None:
        self._served, self._pause_s = served, _CLIENTS / rate_per_s
        self._kinds = _kinds()
        self._known: dict[int, Any] = {}
        self._numbers = itertools.count()
        super().__init__(_CLIENTS, self._run)
        self.latencies_ms: list[float] = []
        self.wrong: list[str] = []
        self.statuses: Counter[int] = Counter()

    def take(self) -> tuple[list[float], int]:
        """Return the latencies since the last call, and how many wrong answers there were so far."""
        with self._lock:
            taken, self.latencies_ms = self.latencies_ms, []
            return taken, len(self.wrong)

    def _run(self, _: int) -> None:
        connection, next_at = self._served.connect(), time.monotonic()
        while not self._ends.wait(max(0.0, next_at - time.monotonic())):
            next_at = max(next_at + self._pause_s, time.monotonic() - 1)
            number = next(self._numbers)
            try:
                if number % 50 == 49:
                    self._leave_early()
                else:
                    self._send(connection, number)
            except Exception as error:
                self._note_wrong(f"request {number}: {error!r}")
                connection.close()
        connection.close()

    def _send(self, connection: Any, number: int) -> None:
        index = number % len(self._kinds)
        kind = self._kinds[index]
        body, began = kind.body(number), time.monotonic()
        connection.request("POST", kind.path, body, kind.headers)
        response = connection.getresponse()
        content = response.read()
        took_ms = 1000 * (time.monotonic() - began)
        with self._lock:
            self.latencies_ms.append(took_ms)
            self.statuses[response.status] += 1
        if response.status not in kind.statuses:
            self._note_wrong(f"request {number}, {kind.path}: {response.status} {content[:200]!r}")
        elif kind.is_constant:
            self._compare(index, kind, without_timings(json.loads(content)))

    def _compare(self, index: int, kind: Kind, document: Any) -> None:
        with self._lock:
            known = self._known.setdefault(index, document)
        if known != document:
            self._note_wrong(f"{kind.path} answered {str(document)[:200]}, before {str(known)[:200]}")

    def _leave_early(self) -> None:
        with contextlib.closing(self._served.raw()) as client:
            client.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + bytes(1000))

    def _note_wrong(self, text: str) -> None:
        with self._lock:
            self.wrong.append(text)


def run(hours: float, interval_s: float = INTERVAL_S, rate_per_s: float = REQUESTS_PER_S) -> Report:
    """Run for some hours and return samples and slopes."""
    title = f"Soak of {hours:g} hours" if hours >= 0.1 else f"Soak of {3600 * hours:g} seconds"
    report = Report("soak", title, _COLUMNS)
    with tempfile.TemporaryDirectory() as folder:
        models = Path(folder)
        write_tiny_model(models)
        with serving(models, "--processes", 2, "--log", "json", fails=True) as served:
            with Clients(served, rate_per_s) as clients:
                samples = list(_samples(served, clients, hours, interval_s))
            report.check(served.sample("resnet_process_deaths_total") == 0, "a process has ended")
        report.broken += [*clients.wrong[:10], *tracebacks(served)]
    report.rows = [_row(sample) for sample in _spread(samples)]
    _judge(samples, report)
    report.facts.append(
        f"{counted(clients.statuses.total())} requests at {rate_per_s:g} a second, {len(clients.wrong)} wrong answers; "
        "a reload at each sample, and every fiftieth client left during its upload. "
        + ", ".join(f"{status}: {counted(count)}" for status, count in sorted(clients.statuses.items()))
        + "."
    )
    return report


def _samples(served: Served, clients: Clients, hours: float, interval_s: float) -> Iterator[Sample]:
    began = time.monotonic()
    for number in itertools.count(1):
        time.sleep(max(0.0, began + number * interval_s - time.monotonic()))
        latencies, wrong = clients.take()
        passed_h = (time.monotonic() - began) / 3600
        yield Sample(passed_h, len(latencies), usage_of(served), _p99(latencies), wrong)
        served.log[:-1000] = []  # the test's own memory
        served.process.send_signal(signal.SIGHUP)
        if passed_h >= hours:
            return


def _p99(latencies: list[float]) -> float:
    return statistics.quantiles(latencies, n=100)[98] if len(latencies) > 1 else float("nan")


def _spread(samples: list[Sample]) -> list[Sample]:
    """Return at most twelve samples, the first and the last among them."""
    last = len(samples) - 1
    places = {round(last * part / (_MOST_ROWS - 1)) for part in range(_MOST_ROWS)}
    return [samples[place] for place in sorted(places)]


def _row(sample: Sample) -> tuple[str, ...]:
    used = sample.usage
    memory = (f"{used.rss_bytes / MEBIBYTE:.1f}", f"{used.pss_bytes / MEBIBYTE:.1f}")
    counts = (str(used.descriptors), str(used.threads), f"{sample.p99_ms:.1f}", str(sample.wrong))
    return f"{60 * sample.hours:.1f}", counted(sample.requests), *memory, *counts


def _judge(samples: list[Sample], report: Report) -> None:
    """Add the slopes, and what they break: a drift counts if the lower limit of its interval is above the promise."""
    steady = samples[int(_WARM_UP * len(samples)) :]
    for name, unit, most, values in _series(steady):
        slope = slope_of([sample.hours for sample in steady], values)
        report.facts.append(f"{name}: {_text(slope)} {unit} an hour (95% interval, without the first tenth).")
        if most is not None and steady[-1].hours - steady[0].hours >= 0.4:  # the warm-up takes minutes
            report.check(slope.low <= most, f"{name} grows by {_text(slope)} {unit} an hour")


def _series(samples: list[Sample]) -> Iterator[tuple[str, str, float | None, Sequence[float]]]:
    yield "RSS", "MiB", None, [sample.usage.rss_bytes / MEBIBYTE for sample in samples]
    yield "PSS", "MiB", _MIB_PER_HOUR, [sample.usage.pss_bytes / MEBIBYTE for sample in samples]
    yield "Descriptors", "", 0.5, [sample.usage.descriptors for sample in samples]
    yield "Threads", "", 0.5, [sample.usage.threads for sample in samples]
    yield "p99", "ms", None, [sample.p99_ms for sample in samples]


def _text(slope: Slope) -> str:
    return f"{slope.value:+.2f} ({slope.low:+.2f} to {slope.high:+.2f})"


if __name__ == "__main__":
    sys.exit(finish(run(float(os.environ.get("HOURS", DEFAULT_HOURS)))))
