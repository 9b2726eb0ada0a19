"""Statistics of several processes, added up and written in Prometheus' text format.

A snapshot is what one process has counted, as plain lists that JSON can carry: counters and histograms by key, each a
list of numbers that can be added to another, and gauges. Counters of processes that have ended stay in the sum.
"""

import os
import resource
import time
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NotRequired, TypedDict

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

METRICS_MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
HISTOGRAMS = (
    ("resnet_batch_size", "Classified images by the size of the batch they shared.", _BATCH_SIZES),
    ("resnet_decode_seconds", "Decoding and resizing one image.", _SECONDS),
    ("resnet_queue_seconds", "Waiting until an engine thread took the image.", _SECONDS),
    ("resnet_inference_seconds", "Running the model on the image's batch.", _SECONDS),
    ("resnet_request_seconds", "From a request's headers to its answer, uploading included.", _SECONDS),
)
_QUEUE_AGE = "resnet_queue_age_seconds"
_COUNTERS = (
    ("resnet_requests", "Answers by route.", ("route", "method", "status")),
    ("resnet_refusals", "Requests that failed, by code.", ("code",)),
    ("resnet_pictures", "Classified images by format.", ("format",)),
    ("resnet_log_lines_dropped", "Lines of the log that its reader was too slow for.", ()),
    ("resnet_traces_dropped", "Traces of requests that the collector did not accept in time.", ()),
    ("resnet_process_deaths", "Processes that ended unasked, by reason, and were replaced.", ("reason",)),
    ("resnet_reloads", "Versions of models after the start, by what became of them.", ("outcome",)),
    ("process_cpu_seconds", "User and system CPU time of all processes.", ()),
)
_GAUGES = (
    ("resnet_requests_in_flight", "Requests without an answer yet."),
    ("resnet_queue_depth", "Images that wait for the engine."),
    (_QUEUE_AGE, "How long the image that waits longest has done so."),
    ("resnet_processes", "Processes that run models."),
    ("process_resident_memory_bytes", "Resident memory of all processes; pages they share count in each."),
    ("process_open_fds", "Open file descriptors of all processes."),
)
_MODEL_LABELS = ("name", "version", "sha256", "provider", "precision")
_STARTED_AT = time.time()


class Snapshot(TypedDict):
    """What one process has counted."""

    counters: dict[str, list[float]]  # by `key`; for a histogram the counts of its buckets, then the sum of its values
    gauges: dict[str, float]
    models: list[list[str]]  # the values of _MODEL_LABELS
    last_ms: NotRequired[dict[str, float]]  # of each model's last answer, since 1970


def key(name: str, *labels: str) -> str:
    """Return the key of a counter or histogram."""
    return "\n".join((name, *labels))


def added(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Return the sum of what several processes have counted."""
    last_ms: dict[str, float] = {}
    total = Snapshot(counters={}, gauges={}, models=[], last_ms=last_ms)
    for snapshot in snapshots:
        for name, numbers in snapshot["counters"].items():
            before = total["counters"].get(name)
            total["counters"][name] = (
                numbers if before is None else [a + b for a, b in zip(before, numbers, strict=True)]
            )
        for name, number in snapshot["gauges"].items():
            before_it = total["gauges"].get(name, 0)
            total["gauges"][name] = max(before_it, number) if name == _QUEUE_AGE else before_it + number
        for name, moment in snapshot.get("last_ms", {}).items():
            last_ms[name] = max(moment, last_ms.get(name, 0))
        total["models"] += [model for model in snapshot["models"] if model not in total["models"]]
    return total


def without_gauges(snapshot: Snapshot) -> Snapshot:
    """Return what stays true when a process has ended."""
    return Snapshot(counters=snapshot["counters"], gauges={}, models=[], last_ms=snapshot.get("last_ms", {}))


def counted(name: str, *labels: str, times: int = 1) -> Snapshot:
    """Return the snapshot of one event, or of so many."""
    return Snapshot(counters={key(name, *labels): [times]}, gauges={}, models=[])


def process_snapshot() -> Snapshot:
    """Return what the operating system says of this process; never fails, also without a free descriptor."""
    gauges = {"process_resident_memory_bytes": _resident_bytes(), "process_open_fds": _open_files()}
    return Snapshot(counters={"process_cpu_seconds": [time.process_time()]}, gauges=gauges, models=[])


def _resident_bytes() -> float:
    """Return the resident memory, or its peak where no descriptor is left to read it with."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _open_files() -> float:
    """Return the number of open descriptors, which is the limit where none is left to count them with."""
    try:
        return float(len(os.listdir("/proc/self/fd")))
    except OSError:
        return float(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def render(snapshot: Snapshot) -> bytes:
    """Return everything in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Families(snapshot))
    return generate_latest(registry)


class _Families(Collector):
    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        for name, text, labels in _COUNTERS:
            family = CounterMetricFamily(name, text, labels=labels)
            for values, numbers in self._of(name):
                family.add_metric(values, numbers[0])
            yield family
        for name, text in _GAUGES:
            yield GaugeMetricFamily(name, text, self._snapshot["gauges"].get(name, 0))
        yield GaugeMetricFamily("process_start_time_seconds", "When the server started.", _STARTED_AT)
        info = GaugeMetricFamily("resnet_model_info", "Loaded models.", labels=_MODEL_LABELS)
        for model in self._snapshot["models"]:
            info.add_metric(model, 1)
        yield info
        for name, text, bounds in HISTOGRAMS:
            histogram = HistogramMetricFamily(name, text, labels=("model",))
            names = [*(str(bound) for bound in bounds), "+Inf"]
            for values, (*counts, total) in self._of(name):
                histogram.add_metric(values, list(zip(names, accumulate(counts), strict=True)), total)
            yield histogram

    def _of(self, name: str) -> Iterator[tuple[list[str], list[float]]]:
        for found, numbers in self._snapshot["counters"].items():
            first, *labels = found.split("\n")
            if first == name:
                yield labels, numbers
