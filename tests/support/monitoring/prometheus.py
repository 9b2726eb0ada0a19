"""A real Prometheus and a real Alertmanager of Debian, with the shipped rules, whose windows may be shortened.

A test that needs them skips where the packages `prometheus` and `prometheus-alertmanager` are not installed.
"""

import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.servers.served import ROOT, Served, free_port, wait_until

MONITORING = ROOT / "deploy" / "monitoring"
RULES = MONITORING / "rules.yml"
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(
    r"(?<=\[)(\d+)(ms|[smhd])(?=\])|(?<=\bfor: )(\d+)(ms|[smhd])\b|(?<=_interval: )(\d+)(ms|[smhd])\b"
)

needs_prometheus = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")), reason="Debian's package prometheus is not installed"
)
needs_alertmanager = pytest.mark.skipif(
    not (shutil.which("prometheus-alertmanager") and shutil.which("amtool")),
    reason="Debian's package prometheus-alertmanager is not installed",
)


def shortened(text: str, factor: int) -> str:
    """Return rules or a configuration with all windows, delays and intervals divided by a factor."""

    def divide(found: re.Match[str]) -> str:
        number, unit = (part for part in found.groups() if part is not None)
        return f"{int(number) * _UNITS_MS[unit] // factor}ms"

    return _DURATION.sub(divide, text)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


@dataclass
class Prometheus:
    """A running Prometheus, and the servers that it scrapes, by name."""

    port: int
    folder: Path
    targets: dict[str, int] = field(default_factory=dict)  # admin ports

    def scrape(self, **servers: Served) -> None:
        """Scrape these servers, too; the names become their `instance`."""
        self.targets |= {name: served.admin_port for name, served in servers.items()}
        self._write()

    def forget(self, name: str) -> None:
        """Scrape a server no longer."""
        del self.targets[name]
        self._write()

    def _write(self) -> None:
        entries = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}} for name, port in self.targets.items()
        ]
        new = self.folder / "targets.new"
        new.write_text(json.dumps(entries))
        new.rename(self.folder / "targets.json")

    def query(self, query: str) -> list[dict[str, Any]]:
        """Return the samples of an instant query."""
        found = _get(f"http://127.0.0.1:{self.port}/api/v1/query?{urllib.parse.urlencode({'query': query})}")
        samples: list[dict[str, Any]] = found["data"]["result"]
        return samples

    def value(self, query: str) -> float | None:
        """Return the only sample of a query; None if there is none."""
        found = self.query(query)
        return float(found[0]["value"][1]) if found else None

    def firing(self) -> set[tuple[str, str]]:
        """Return name and instance of every alert that fires."""
        alerts = _get(f"http://127.0.0.1:{self.port}/api/v1/alerts")["data"]["alerts"]
        return {
            (alert["labels"]["alertname"], alert["labels"].get("instance", ""))
            for alert in alerts
            if alert["state"] == "firing"
        }


def _configuration(factor: int, alertmanager_port: int | None) -> str:
    document = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    document["scrape_configs"][0] |= {
        "static_configs": [],
        "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1h"}],  # changes are seen at once
    }
    if alertmanager_port is None:
        del document["alerting"]
    else:
        document["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager_port}"]
    text: str = yaml.safe_dump(document)
    return shortened(text, factor).replace("refresh_interval: 60000ms", "refresh_interval: 1s")


@contextlib.contextmanager
def prometheus(folder: Path, *, factor: int, alertmanager_port: int | None = None) -> Iterator[Prometheus]:
    """Run Prometheus with the shipped configuration, all of whose times are divided by `factor`."""
    running = Prometheus(free_port(), folder)
    (folder / "targets.json").write_text("[]")
    (folder / "rules.yml").write_text(shortened(RULES.read_text(), factor))
    (folder / "prometheus.yml").write_text(_configuration(factor, alertmanager_port))
    options = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data")
    with _running("prometheus", *options, f"--web.listen-address=127.0.0.1:{running.port}", folder=folder):
        wait_until(lambda: _is_ready(running.port))
        yield running


@contextlib.contextmanager
def alertmanager(folder: Path, *, factor: int, webhook: str) -> Iterator[int]:
    """Run Alertmanager with the shipped configuration and a webhook; return its port."""
    document = yaml.safe_load((MONITORING / "alertmanager.yml").read_text())
    document["receivers"][0]["webhook_configs"] = [{"url": webhook, "send_resolved": True}]
    text = shortened(yaml.safe_dump(document), factor).replace("group_wait: 30s", f"group_wait: {30_000 // factor}ms")
    (folder / "alertmanager.yml").write_text(text)
    port = free_port()
    options = (
        f"--config.file={folder}/alertmanager.yml",
        f"--storage.path={folder}/alerts",
        "--cluster.listen-address=",
    )
    with _running("prometheus-alertmanager", *options, f"--web.listen-address=127.0.0.1:{port}", folder=folder):
        wait_until(lambda: _is_ready(port))
        yield port


@contextlib.contextmanager
def _running(program: str, *options: str, folder: Path) -> Iterator[None]:
    with (folder / f"{program}.log").open("w") as log, subprocess.Popen([program, *options], stderr=log) as process:
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # URLError included
        return False


def panels(variables: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return title and query of every panel of the dashboard, and of its annotations, with these variables."""
    document = json.loads((MONITORING / "grafana" / "dashboards" / "resnet-service.json").read_text())
    found = [(panel["title"], target["expr"]) for panel in document["panels"] for target in panel.get("targets", ())]
    for name, value in variables.items():
        found = [(title, query.replace(f"${name}", value)) for title, query in found]
    return found


def seconds_until(condition: Any, limit_s: float) -> float | None:
    """Return how long it took until a condition held; None: longer than `limit_s`."""
    started = time.monotonic()
    while time.monotonic() - started < limit_s:
        if condition():
            return time.monotonic() - started
        time.sleep(0.05)
    return None
