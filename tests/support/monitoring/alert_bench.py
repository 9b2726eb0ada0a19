"""What the tests of alerts share: the monitoring with what it has seen, a receiver of notifications, and the table."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support.monitoring.prometheus import Prometheus, seconds_until
from tests.support.servers.served import Served, serving, wait_until

_LONGEST_S = 150.0


@dataclass
class Observed:
    """What happened to one alert."""

    fault: str
    fired_s: float | None = None  # after the fault began
    resolved_s: float | None = None  # after it ended


@dataclass
class Bench:
    """The monitoring, and what it has seen."""

    monitoring: Prometheus
    models: Path
    folder: Path
    alerts: dict[str, Observed] = field(default_factory=dict)
    firing: set[tuple[str, str]] = field(default_factory=set)
    notified: list[dict[str, Any]] = field(default_factory=list)
    empty_panels: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def server(self, name: str, *options: object, models: Path | None = None, patch: str = "") -> Iterator[Served]:
        with serving(models or self.models, "--processes", 1, "--engine-threads", 1, *options, patch=patch) as served:
            self.monitoring.scrape(**{name: served})
            wait_until(lambda: self.monitoring.value(f'resnet:load:rate1m{{instance="{name}"}}') is not None)
            yield served

    def fires(self, name: str, fault: str, *alerts: str) -> None:
        """Wait until the alerts fire for the fault that has just begun."""
        started = time.monotonic()
        for alert in alerts:
            self.alerts[alert] = Observed(fault)
            if seconds_until(lambda alert=alert: (alert, name) in self.firing, _left_s(started)) is not None:
                self.alerts[alert].fired_s = time.monotonic() - started

    def resolves(self, name: str, *alerts: str) -> None:
        """Wait until the alerts resolve after their fault has just ended."""
        ended = time.monotonic()
        for alert in alerts:
            if seconds_until(lambda alert=alert: (alert, name) not in self.firing, _left_s(ended)) is not None:
                self.alerts[alert].resolved_s = time.monotonic() - ended


def _left_s(started: float) -> float:
    return _LONGEST_S - (time.monotonic() - started)


@contextlib.contextmanager
def webhook(received: list[dict[str, Any]]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.extend(json.loads(self.rfile.read(int(self.headers["content-length"])))["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def table(bench: Bench) -> Iterator[str]:
    yield "| alert | fault | fires after | resolves after |\n|---|---|---|---|"
    for alert, observed in bench.alerts.items():
        times = (
            f"{seconds:.0f} s" if seconds is not None else "never"
            for seconds in (observed.fired_s, observed.resolved_s)
        )
        yield f"| {alert} | {observed.fault} | {' | '.join(times)} |"
