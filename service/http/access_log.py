"""The log: one line for each request, and the messages of the program, as JSON or as text.

A line holds no free text of a client: no path, no query, no file name, and of the headers only ids in a validated form.
Names are those of routes and models.
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

# Health probes request these routes every few seconds; their lines would hide all others.
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
_PROBE_STATUSES = frozenset((200, 503))  # any other status means that the probe is misconfigured

Form = Callable[[dict[str, Any]], bytes]


@dataclass(frozen=True, slots=True)
class AccessLog:
    """Writes a line for each completed request."""

    writer: LogWriter
    form: Form

    def note(self, context: RequestContext, method: str, route: str) -> None:
        """Queue the line of one request, unless it is an ordinary health check."""
        if route in _PROBES and context.status in _PROBE_STATUSES:
            return
        line = _request_line(context.request_id, method, route, context.status)
        line["bytes_in"] = context.bytes_in
        line["bytes_out"] = context.bytes_out
        line["total_ms"] = milliseconds(time.monotonic() - context.started_at)
        if context.traceparent is not None:
            line["traceparent"] = context.traceparent.decode()
        if context.client is not None:
            line["client"] = context.client
        if context.failure is not None:
            line["code"] = context.failure
        if context.model is not None:
            line["pictures"] = context.images
            line["decode_ms"] = milliseconds(context.decode_s)
            line["queue_ms"] = milliseconds(context.queue_s)
            line["inference_ms"] = milliseconds(context.inference_s)
            if context.draw_s is not None:
                line["draw_ms"] = milliseconds(context.draw_s)
            line["model"] = context.model.served_as
            line["model_sha256"] = context.model.sha256
        self.writer.put(self.form(line))

    def log_rejected(self, status: int, code: str, identity: bytes, client: str | None) -> None:
        """Queue the line of a request that the connection rejected before it reached the application."""
        line = _request_line(identity, "other", "other", status)
        line |= {"bytes_in": 0, "bytes_out": 0, "total_ms": 0.0}
        if client is not None:
            line["client"] = client
        self.writer.put(self.form(line | {"code": code}))

    def log_refusals(self, route: str, count: int, status: int, code: str) -> None:
        """Queue one line for `count` requests to one route that were refused from their heads."""
        line = _head(time.time(), "INFO", "requests refused")
        self.writer.put(
            self.form(line | {"method": "POST", "route": route, "status": status, "code": code, "count": count})
        )


def _request_line(identity: bytes, method: str, route: str, status: int | None) -> dict[str, Any]:
    """Return the first fields of a request's line."""
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
    return orjson.dumps(line) + b"\n"  # a copy, because the result of orjson may hold 8 KB, and thousands of lines wait


def as_text(line: dict[str, Any]) -> bytes:
    """Return a line as readable text."""
    time_text, level, message, *values = line.values()
    names = list(line)[3:]
    further = "".join(f" {name}={value}" for name, value in zip(names, values, strict=True) if name != "exception")
    trace = f"\n{line['exception']}" if "exception" in line else ""
    return f"{time_text} {level} {message}{further}{trace}\n".encode()


class LogHandler(logging.Handler):
    """Sends the program's log records to the same writer."""

    def __init__(self, writer: LogWriter, form: Form) -> None:
        super().__init__()
        self._writer = writer
        self._form = form

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record."""
        self._writer.put(self._line(record))

    def flush(self) -> None:
        """Wait for a short time until all lines are written."""
        self._writer.flush()

    def _line(self, record: logging.LogRecord) -> bytes:
        line = _head(record.created, record.levelname, record.getMessage())
        if record.exc_info:
            line["exception"] = logging.Formatter().formatException(record.exc_info)
        return self._form(line)
