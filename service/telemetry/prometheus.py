"""Statistics of several processes, summed and written in Prometheus' text format.

A snapshot has the statistics of one process as plain lists for JSON: counters and histograms by key, each a list of
numbers that can be summed, and gauges. Counters of ended processes stay in the sum.
"""

import os
import resource
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import NotRequired, TypedDict

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from service.telemetry.build import build_versions

METRICS_MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4

# Small images decode in 0.1 ms, and the default limit of waiting is 5 s; an upload may take 30 s. Where the usual
# limits of objectives lie, 50 ms to 1 s, buckets are narrower: a quantile is exact to half a bucket.
_WORK_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
_WAIT_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_REQUEST_S = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7),
    *(1.0, 1.5, 2.0, 5.0, 10.0, 30.0),
)
_BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
HISTOGRAMS = (
    ("resnet_batch_size", "Classified images by the size of the batch they shared.", _BATCH_SIZES),
    ("resnet_decode_seconds", "Decoding and resizing one image.", _WORK_S),
    ("resnet_queue_seconds", "Waiting until an engine thread took the image.", _WAIT_S),
    ("resnet_inference_seconds", "Running the model on the image's batch.", _WORK_S),
    ("resnet_request_seconds", "From a request's headers to its response, including the upload.", _REQUEST_S),
)
CONFIDENCE = "resnet_confidence"
PREDICTIONS = "resnet_predictions"
_CONFIDENCE_HISTOGRAM = (CONFIDENCE, "Probability of each image's best label; only with --label-metrics.", CONFIDENCES)
_QUEUE_AGE = "resnet_queue_age_seconds"
_COUNTERS = (
    ("resnet_requests", "Responses by route.", ("route", "method", "status")),
    ("resnet_refusals", "Requests that failed, by code.", ("code",)),
    ("resnet_pictures", "Classified images by format.", ("format",)),
    ("resnet_log_lines_dropped", "Log lines that were dropped because their reader was too slow.", ()),
    ("resnet_traces_dropped", "Traces of requests that the collector did not accept in time.", ()),
    ("resnet_process_deaths", "Processes that ended unexpectedly and were replaced, by reason.", ("reason",)),
    ("resnet_reloads", "Changes of model versions after the start, by outcome.", ("outcome",)),
    ("resnet_engine_busy_seconds", "Seconds that engine threads have decoded images and run models, together.", ()),
    (PREDICTIONS, "Images by their best label; only with --label-metrics.", ("model", "label")),
    ("process_cpu_seconds", "User and system CPU time of all processes.", ()),
)
_GAUGES = (
    ("resnet_requests_in_flight", "Requests in progress."),
    ("resnet_queue_depth", "Images in the queue."),
    (_QUEUE_AGE, "Waiting time of the oldest image in the queue."),
    ("resnet_engine_threads", "Threads that run models, in all processes."),
    ("resnet_connections", "Open connections of clients."),
    ("resnet_upload_memory_bytes", "Memory of request bodies."),
    ("resnet_upload_memory_limit_bytes", "Memory that request bodies may take; further ones get 503."),
    ("resnet_fallback_models", "Models on the CPU where a GPU provider is installed, counted in each process."),
    ("resnet_processes", "Processes that run models."),
    ("resnet_ready", "1 if load balancers should send requests here."),
    ("resnet_uptime_seconds", "Time since the server started."),
    ("resnet_cores", "Cores that the server may use."),
    ("resnet_memory_bytes", "Memory in use that counts against the limit, without the cache of files."),
    ("resnet_memory_limit_bytes", "Memory that the server may use: of its control group, or of the machine."),
    ("process_resident_memory_bytes", "Resident memory of all processes; shared pages count in each."),
    ("process_open_fds", "Open file descriptors of all processes."),
    ("process_max_fds", "Limit of open file descriptors, added up over the processes."),
)
_MODEL_LABELS = ("name", "version", "sha256", "provider", "precision")
_STARTED_AT, _STARTED_S = time.time(), time.monotonic()  # workers are forks, so this is the server's start


class Snapshot(TypedDict):
    """The statistics of one process."""

    counters: dict[str, list[float]]  # by `key`; for a histogram the counts of its buckets, then the sum of its values
    gauges: dict[str, float]
    models: list[list[str]]  # the values of _MODEL_LABELS
    last_ms: NotRequired[dict[str, float]]  # the time of each model's last response, since 1970


def key(name: str, *labels: str) -> str:
    """Return the key of a counter or histogram."""
    return "\n".join((name, *labels))


def merge(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Return the sum of the statistics of several processes."""
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
    """Return the counters of an ended process."""
    return Snapshot(counters=snapshot["counters"], gauges={}, models=[], last_ms=snapshot.get("last_ms", {}))


def counter(name: str, *labels: str, times: int = 1) -> Snapshot:
    """Return the snapshot of one event, or of several."""
    return Snapshot(counters={key(name, *labels): [times]}, gauges={}, models=[])


def uptime_s() -> float:
    """Return the seconds since the server started; a change of the clock does not change them."""
    return time.monotonic() - _STARTED_S


def process_snapshot() -> Snapshot:
    """Return the operating system's figures of this process; never fails, also without a free file descriptor."""
    gauges = {
        "process_resident_memory_bytes": _resident_bytes(),
        "process_open_fds": _open_files(),
        "process_max_fds": _most_files(),
    }
    return Snapshot(counters={"process_cpu_seconds": [time.process_time()]}, gauges=gauges, models=[])


def _resident_bytes() -> float:
    """Return the resident memory, or its peak if no file descriptor is free to read it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return float(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _open_files() -> float:
    """Return the number of open file descriptors; the limit if none is free to count them."""
    try:
        return float(len(os.listdir("/proc/self/fd")))
    except OSError:
        return _most_files()


def _most_files() -> float:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float(sys.maxsize if limit == resource.RLIM_INFINITY else limit)


def render(snapshot: Snapshot) -> bytes:
    """Return all statistics in Prometheus' text format."""
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
        build = GaugeMetricFamily("resnet_build_info", "Versions of the programs.", labels=tuple(build_versions()))
        build.add_metric(tuple(build_versions().values()), 1)
        yield build
        info = GaugeMetricFamily("resnet_model_info", "Loaded models.", labels=_MODEL_LABELS)
        for model in self._snapshot["models"]:
            info.add_metric(model, 1)
        yield info
        for name, text, bounds in (*HISTOGRAMS, _CONFIDENCE_HISTOGRAM):
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
