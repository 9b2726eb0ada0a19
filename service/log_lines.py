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

from service.exchange import Exchange
from service.log_writer import LogWriter
from service.milliseconds import milliseconds

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"))

Form = Callable[[dict[str, Any]], bytes]


@dataclass(frozen=True, slots=True)
class RequestLog:
    """Notes requests that are over."""

    writer: LogWriter
    form: Form

    def note(self, exchange: Exchange, method: str, route: str) -> None:
        """Have one request's line written."""
        model = exchange.model
        values = (
            exchange.request_id,
            exchange.traceparent,
            exchange.client,
            method,
            route,
            exchange.status,
            exchange.failure,
            exchange.bytes_in,
            exchange.bytes_out,
            time.monotonic() - exchange.started_at,
            exchange.pictures,
            exchange.decode_s,
            exchange.queue_s,
            exchange.inference_s,
            None if model is None else (model.name, model.version, model.sha256),
        )
        self.writer.put(_request_line(self.form, time.time(), values))

    def note_unread(self, status: int, code: str, identity: bytes, client: str | None) -> None:
        """Have the line written of what was refused before it became a request."""
        values = (identity, None, client, "", "other", status, code, 0, 0, 0.0, 0, 0.0, 0.0, 0.0, None)
        self.writer.put(_request_line(self.form, time.time(), values))


def _request_line(form: Form, when: float, values: tuple[Any, ...]) -> bytes:
    (identity, trace, client, method, route, status, failure, bytes_in, bytes_out, total_s, pictures, *steps, model) = (
        values
    )
    line: dict[str, Any] = {
        **_head(when, "INFO", "request"),
        "request_id": identity.decode(),
        "method": method if method in _METHODS else "other",
        "route": route,
        "status": status,
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
        "total_ms": milliseconds(total_s),
    }
    if trace is not None:
        line["traceparent"] = trace.decode()
    if client is not None:
        line["client"] = client
    if failure is not None:
        line["code"] = failure
    if model is not None:
        decode_s, queue_s, inference_s = steps
        line |= {
            "pictures": pictures,
            "decode_ms": milliseconds(decode_s),
            "queue_ms": milliseconds(queue_s),
            "inference_ms": milliseconds(inference_s),
            "model": f"{model[0]}:{model[1]}",
            "model_sha256": model[2],
        }
    return form(line)


def _head(when: float, level: str, message: str) -> dict[str, Any]:
    seconds = int(when)
    time_text = f"{_to_the_second(seconds)}.{int((when - seconds) * 1000):03d}Z"
    return {"time": time_text, "level": level, "message": message}


@functools.lru_cache(maxsize=4)
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def as_json(line: dict[str, Any]) -> bytes:
    """Return a line as one JSON object."""
    return orjson.dumps(line) + b"\n"


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
