"""CPU time that tracing adds to a request: off, not sampled, sampled, and the thread's share.

python -m benchmarks.traces

The collector is a socket server of this process that discards what it receives; its time does not count.
"""

import sys
import time
from collections.abc import Callable
from typing import Any

from service.http.request_context import RequestContext
from service.http.tracing import BatchIds, Tracer, spans_of
from service.http.upload_limits import UploadMemory
from service.images.preprocessing import ImageInfo
from service.inference.results import Classification, ModelInfo
from service.telemetry.otlp import Collector

_REQUESTS, _REPEATS = 20_000, 7
_MODEL = ModelInfo("model", "1", "0" * 64, "CPUExecutionProvider", "fp32")
_IMAGE = Classification([], ImageInfo("JPEG", 32, 32), 0.001, 0.002, 0.003, 8, batch_started_at=100.0)
_PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-"


async def _nothing(*_: Any) -> Any:
    return None


def _context(flag: bytes | None) -> RequestContext:
    headers = [] if flag is None else [(b"traceparent", _PARENT + flag)]
    context = RequestContext({"headers": headers}, _nothing, _nothing, UploadMemory(1), is_last=False)
    context.status = 200
    return context


def _request(tracer: Tracer | None, context: RequestContext) -> None:
    """What admission and `note_image` do of tracing for one request."""
    if tracer is not None:
        tracer.begin(context)
    if context.traced_images is not None:
        context.traced_images.append(_IMAGE)
        context.received_at = time.monotonic()
    if tracer is not None:
        tracer.end(context, "POST", "/classify")


def _us(work: Callable[[], None]) -> float:
    """Return the least CPU microseconds of this thread for one of many calls."""
    best = float("inf")
    for _ in range(_REPEATS):
        started = time.thread_time()
        for _ in range(_REQUESTS):
            work()
        best = min(best, time.thread_time() - started)
    return best / _REQUESTS * 1e6


class _Kept(list[Any]):
    """An exporter's queue that keeps the last record only."""

    def append(self, record: Any) -> None:
        self[:] = [record]


def main() -> None:
    """Print a table of the four costs."""
    tracer = Tracer(Collector(False, "127.0.0.1:9", "/v1/traces"), 0.0)
    kept = _Kept()
    tracer.exporter.put = kept.append  # type: ignore[method-assign]  # the thread's share is measured apart
    off, unsampled, sampled = _context(None), _context(b"00"), _context(b"01")
    batches = BatchIds()
    rows = {
        "no endpoint": _us(lambda: _request(None, off)),
        "not sampled, with the header": _us(lambda: _request(tracer, unsampled)),
        "not sampled, by the ratio": _us(lambda: _request(tracer, off)),
        "sampled": _us(lambda: _request(tracer, sampled)),
    }
    rows["sampled, in the thread"] = _us(lambda: [*spans_of(kept[0], batches)] and None)
    for name, cost in rows.items():
        sys.stdout.write(f"| {name} | {cost:.1f} µs |\n")


if __name__ == "__main__":
    main()
