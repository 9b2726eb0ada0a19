"""What is written to the log: one line a request, and what the program itself has to say, as JSON or as text.

A line holds nothing that a client chose freely: no path, no query, no file name; of headers only ids in a form that is
known. Names are those of routes and models.
"""

import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from service.http.request_context import RequestContext
from service.telemetry.durations import milliseconds
from service.telemetry.log_writer import LogWriter
from service.telemetry.metrics import METHODS

# Probes and the container's own check ask for these every few seconds; a line each would bury all others.
_PROBES = frozenset(
    (
        "/health/live",
        "/health/ready",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/{model}/ready",
        "/v2/models/{model}/versions/{version}/ready",
    )
)
_PROBE_STATUSES = frozenset((200, 503))  # any other answer means that the probe is wrong

Form = Callable[[dict[str, Any]], bytes]


@dataclass(frozen=True, slots=True)
class AccessLog:
    """Notes requests that are over."""

    writer: LogWriter
    form: Form

    def note(self, exchange: RequestContext, method: str, route: str) -> None:
        """Have one request's line written, unless it is an ordinary health check."""
        if route in _PROBES and exchange.status in _PROBE_STATUSES:
            return
        line = _request_line(exchange.request_id, method, route, exchange.status)
        line["bytes_in"] = exchange.bytes_in
        line["bytes_out"] = exchange.bytes_out
        line["total_ms"] = milliseconds(time.monotonic() - exchange.started_at)
        if exchange.traceparent is not None:
            line["traceparent"] = exchange.traceparent.decode()
        if exchange.client is not None:
            line["client"] = exchange.client
        if exchange.failure is not None:
            line["code"] = exchange.failure
        if exchange.model is not None:
            line["pictures"] = exchange.images
            line["decode_ms"] = milliseconds(exchange.decode_s)
            line["queue_ms"] = milliseconds(exchange.queue_s)
            line["inference_ms"] = milliseconds(exchange.inference_s)
            if exchange.draw_s is not None:
                line["draw_ms"] = milliseconds(exchange.draw_s)
            line["model"] = exchange.model.served_as
            line["model_sha256"] = exchange.model.sha256
        self.writer.put(self.form(line))

    def log_rejected(self, status: int, code: str, identity: bytes, client: str | None) -> None:
        """Have the line written of what was refused before it became a request."""
        line = _request_line(identity, "other", "other", status)
        line |= {"bytes_in": 0, "bytes_out": 0, "total_ms": 0.0}
        if client is not None:
            line["client"] = client
        self.writer.put(self.form(line | {"code": code}))

    def log_refusals(self, route: str, count: int, status: int, code: str) -> None:
        """Have one line written for many requests to one route that were refused from their heads."""
        line = _head(time.time(), "INFO", "requests refused")
        self.writer.put(
            self.form(line | {"method": "POST", "route": route, "status": status, "code": code, "count": count})
        )


def _request_line(identity: bytes, method: str, route: str, status: int | None) -> dict[str, Any]:
    """Return what every request's line begins with."""
    line = _head(time.time(), "INFO", "request")
    line["request_id"] = identity.decode()
    line["method"] = method if method in METHODS else "other"
    line["route"] = route
    line["status"] = status
    return line


def _head(when: float, level: str, message: str) -> dict[str, Any]:
    seconds = int(when)
    time_text = f"{_to_the_second(seconds)}.{int((when - seconds) * 1000):03d}Z"
    return {"time": time_text, "level": level, "message": message}


@functools.lru_cache(maxsize=4)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def as_json(line: dict[str, Any]) -> bytes:
    """Return a line as one JSON object."""
    return orjson.dumps(line) + b"\n"  # a copy: what orjson returns keeps up to 8 KB, and thousands of lines may wait


def as_text(line: dict[str, Any]) -> bytes:
    """Return a line for people."""
    time_text, level, message, *values = line.values()
    names = list(line)[3:]
    further = "".join(f" {name}={value}" for name, value in zip(names, values, strict=True) if name != "exception")
    trace = f"\n{line['exception']}" if "exception" in line else ""
    return f"{time_text} {level} {message}{further}{trace}\n".encode()


class LogHandler(logging.Handler):
    """Sends what the program logs to the same writer."""

    def __init__(self, writer: LogWriter, form: Form) -> None:
        super().__init__()
        self._writer = writer
        self._form = form

    def emit(self, record: logging.LogRecord) -> None:
        """Have the record written."""
        self._writer.put(self._line(record))

    def flush(self) -> None:
        """Wait, but not for long, until everything is written."""
        self._writer.flush()

    def _line(self, record: logging.LogRecord) -> bytes:
        line = _head(record.created, record.levelname, record.getMessage())
        if record.exc_info:
            line["exception"] = logging.Formatter().formatException(record.exc_info)
        return self._form(line)
