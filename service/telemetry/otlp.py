"""Export of spans to a collector by OTLP over HTTP, as JSON, from a thread that never delays a request.

OpenTelemetry's SDK takes about 100 µs a request; here a request hands over one record after its response, and the
thread makes spans of it. Records that exceed the buffer, or that the collector does not accept, are dropped and
counted. The thread starts with the first record. See https://opentelemetry.io/docs/specs/otlp/#otlphttp.
"""

import contextlib
import http.client
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Generic, TypeVar
from urllib.parse import unquote, urlsplit

import orjson

log = logging.getLogger(__name__)

Span = dict[str, Any]
Record = TypeVar("Record")

_PATH = "/v1/traces"
_MOST_RECORDS = 2048
_MOST_AT_ONCE = 256  # records of one export
_PAUSE_S = 0.5  # between two exports: one for each request would cost more than its spans
_TIMEOUT_S = 5.0
_FLUSH_S = 1.0
_LOOK_S = 0.005
_LOG_INTERVAL_S = 60.0


class BadEndpoint(ValueError):
    """The variables of the collector are wrong; the message is one line for an operator."""


@dataclass(frozen=True, slots=True)
class Collector:
    """Where spans go, and the resource that they belong to."""

    is_https: bool
    address: str  # host:port
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    resource: Mapping[str, str] = field(default_factory=dict)


def collector(environment: Mapping[str, str] = os.environ) -> Collector | None:
    """Return the collector of OpenTelemetry's variables, or None if there is none. Raises BadEndpoint."""
    base = environment.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if not base:
        return None
    try:
        parts = urlsplit(base)
        has_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        has_address = False
    if not has_address:
        raise BadEndpoint(f"OTEL_EXPORTER_OTLP_ENDPOINT is no address: {base!r}; give one as in http://127.0.0.1:4318")
    resource = {
        "service.name": "resnet-service",
        "service.version": version("resnet-service"),
        **_pairs(environment.get("OTEL_RESOURCE_ATTRIBUTES", "")),
    }
    if name := environment.get("OTEL_SERVICE_NAME"):
        resource["service.name"] = name
    headers = _pairs(environment.get("OTEL_EXPORTER_OTLP_HEADERS", ""))
    return Collector(parts.scheme == "https", parts.netloc, parts.path.rstrip("/") + _PATH, headers, resource)


def _pairs(text: str) -> dict[str, str]:
    """Return the pairs of `a=1,b=2`."""
    pairs = (pair.partition("=") for pair in text.split(","))
    return {name.strip(): unquote(value.strip()) for name, separator, value in pairs if separator}


def attribute(name: str, value: str | float) -> dict[str, Any]:
    """Return an attribute in OTLP's form."""
    if isinstance(value, str):
        return {"key": name, "value": {"stringValue": value}}
    if isinstance(value, int):
        return {"key": name, "value": {"intValue": str(value)}}
    return {"key": name, "value": {"doubleValue": value}}


class SpanExporter(Generic[Record]):
    """Sends the spans of records to a collector. `spans_of` makes them, in the thread of the exporter."""

    def __init__(
        self, target: Collector, spans_of: Callable[[Record], Iterable[Span]], most_records: int = _MOST_RECORDS
    ) -> None:
        self.dropped = 0  # records
        self._target = target
        self._spans_of = spans_of
        self._most_records = most_records
        self._records: deque[Record] = deque()
        self._has_records, self._hurry = threading.Event(), threading.Event()
        self._is_sending = False
        self._thread: threading.Thread | None = None
        self._complained_at = -_LOG_INTERVAL_S
        self._resource = {"attributes": [attribute(*pair) for pair in target.resource.items()]}

    def put(self, record: Record) -> None:
        """Queue a record for export. Called by one thread only; never blocks."""
        if len(self._records) >= self._most_records:
            self.dropped += 1
            return
        self._records.append(record)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
            self._thread.start()
        self._has_records.set()

    def flush(self) -> None:
        """Wait until everything is sent, 1 s at most."""
        deadline = time.monotonic() + _FLUSH_S
        self._hurry.set()
        while (self._records or self._is_sending) and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        self._hurry.clear()

    def _run(self) -> None:
        while True:
            self._has_records.wait()
            self._is_sending = True
            self._has_records.clear()
            while records := self._taken():
                self._export(records)
            self._is_sending = False
            self._hurry.wait(_PAUSE_S)

    def _taken(self) -> list[Record]:
        return [self._records.popleft() for _ in range(min(len(self._records), _MOST_AT_ONCE))]

    def _export(self, records: list[Record]) -> None:
        spans = [span for record in records for span in self._spans_of(record)]
        scope_spans = [{"scope": {"name": "resnet-service"}, "spans": spans}]
        try:
            self._post(orjson.dumps({"resourceSpans": [{"resource": self._resource, "scopeSpans": scope_spans}]}))
        except (OSError, http.client.HTTPException) as error:
            self.dropped += len(records)
            self._complain(error)

    def _post(self, body: bytes) -> None:
        """Send one export. Raises OSError or HTTPException if the collector does not accept it."""
        target = self._target
        kind = http.client.HTTPSConnection if target.is_https else http.client.HTTPConnection
        with contextlib.closing(kind(target.address, timeout=_TIMEOUT_S)) as connection:
            connection.request("POST", target.path, body, {**target.headers, "Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
        if response.status != http.client.OK:
            raise http.client.HTTPException(f"status {response.status}")

    def _complain(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._complained_at >= _LOG_INTERVAL_S:
            self._complained_at = now
            reason = str(error) if isinstance(error, http.client.HTTPException) else type(error).__name__
            log.warning("the collector of traces at %s does not accept them: %s", self._target.address, reason)
