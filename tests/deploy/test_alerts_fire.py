"""Each alert fires by the fault it is for, on a real Prometheus that scrapes real servers, and resolves afterwards.

All windows, delays and intervals are divided by 60; `test_monitoring.py` holds the shipped ones. The servers run side
by side, so that the whole takes about three minutes. `pytest -s` prints the table.
"""

import contextlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from tests.support.model_files.tiny_model import tiny_model, write_tiny_model
from tests.support.monitoring.alert_bench import Bench, table, webhook
from tests.support.monitoring.paced_load import PacedLoad
from tests.support.monitoring.prometheus import (
    RULES,
    alertmanager,
    needs_alertmanager,
    needs_prometheus,
    panels,
    prometheus,
    seconds_until,
)
from tests.support.monitoring.slow_engine import SLOW_ENGINE
from tests.support.servers.served import ROOT, Served, ports_it_says, wait_until

FACTOR = 60
_SHORT_LOG = "from service.telemetry.log_writer import LogWriter; LogWriter.__init__.__defaults__ = (2, 50)\n"
_GPU_BUILD = (
    "import service.engine.provider_selection as selection\n"
    "selection.available_providers = lambda: ['CUDAExecutionProvider', 'CPUExecutionProvider']\n"
)
LIMITS = ("memory.max", "memory.limit_in_bytes")  # of version 2 and 1
USAGES = ("memory.current", "memory.usage_in_bytes")

pytestmark = [pytest.mark.long, pytest.mark.timeout(540), needs_prometheus, needs_alertmanager]


def image(*colour: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(content, "PNG")
    return content.getvalue()


RED, WHITE, PALE = image(255, 0, 0), image(255, 255, 255), image(120, 130, 125)


def kill_workers(bench: Bench) -> None:
    with bench.server("deaths", "--processes", 5) as served:
        for pid in served.workers()[:4]:
            os.kill(pid, signal.SIGKILL)
        bench.fires("deaths", "4 of 5 workers killed", "ResnetWorkerDying")
        bench.resolves("deaths", "ResnetWorkerDying")


def overload(bench: Bench) -> None:
    kinds = ("Overloaded", "Refusing", "QueueAged", "Slow", "AvailabilityFastBurn", "AvailabilitySlowBurn")
    alerts = [f"Resnet{kind}" for kind in kinds]
    with (
        bench.server("overload", "--max-queue", 64, patch=SLOW_ENGINE) as served,
        PacedLoad(lambda: [served.port], [RED], 200) as load,  # four times the 50 images a second that it can do
    ):
        bench.fires("overload", "4 times the capacity", *alerts)
        load.rate = 5
        bench.resolves("overload", *alerts)


def broken_model(bench: Bench) -> None:
    models = bench.folder / "poisoned"
    write_tiny_model(models, content=tiny_model(poison=True))
    with (
        bench.server("broken", models=models) as served,
        PacedLoad(lambda: [served.port], [RED] * 9 + [WHITE], 20) as load,
    ):
        burns = ("ResnetErrorBudgetFastBurn", "ResnetErrorBudgetSlowBurn")
        bench.fires("broken", "the model returns NaN for every tenth image", *burns)
        load.bodies = [RED]
        bench.resolves("broken", *burns)


def bad_version(bench: Bench) -> None:
    models = bench.folder / "updated"
    shutil.copytree(bench.models, models)
    with bench.server("refused", models=models) as served:
        broken = models / "tiny" / "2" / "model.onnx"
        broken.parent.mkdir()
        broken.write_bytes(b"no model")
        served.process.send_signal(signal.SIGHUP)
        bench.fires("refused", "SIGHUP with a broken version 2", "ResnetReloadRefused")
        bench.resolves("refused", "ResnetReloadRefused")


def blocked_log(bench: Bench) -> None:
    command = ["-c", f"{_SHORT_LOG}from service.__main__ import main; main()", "--models", bench.models]
    with (
        serving_with_blocked_log(bench, *command) as (served, reads),
        PacedLoad(lambda: [served.port], [b"x"], 100, path="/" + "x" * 10),
    ):
        bench.fires("log", "the reader of the log stands still", "ResnetLogDropped")
        reads.set()
        bench.resolves("log", "ResnetLogDropped")


@contextlib.contextmanager
def serving_with_blocked_log(bench: Bench, *command: object) -> Iterator[tuple[Served, threading.Event]]:
    """Run a server whose log is read up to its ports, and again once the event is set."""
    options = ("--processes", 1, "--engine-threads", 1, "--port", 0, "--admin-port", 0, "--log", "json")
    reads = threading.Event()
    with subprocess.Popen(
        [sys.executable, *map(str, (*command, *options))], cwd=ROOT, stderr=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        served = Served(process, 0, 0)
        try:
            served.port, served.admin_port = ports_it_says(served)
            reader = threading.Thread(target=lambda: reads.wait() and served.read_log(), daemon=True)
            reader.start()
            bench.monitoring.scrape(log=served)
            wait_until(lambda: bench.monitoring.value('resnet:load:rate1m{instance="log"}') is not None)
            yield served, reads
        finally:
            reads.set()
            served.stop()
            process.wait(20)


def fallback_and_end(bench: Bench) -> None:
    """One server, three alerts: it runs on its CPU, drains for long, and is gone until another one takes its place."""
    name = "fallback"
    with bench.server(name, "--drain-delay-s", 12, patch=_GPU_BUILD) as served:
        bench.fires(name, "a GPU build without a device", "ResnetProviderFellBack")
        served.stop()
        bench.fires(name, "SIGTERM with a long drain", "ResnetNotReady")
        served.process.wait()
        bench.resolves(name, "ResnetProviderFellBack", "ResnetNotReady")
    bench.fires(name, "the server has ended", "ResnetTargetDown")
    with bench.server(name):
        bench.resolves(name, "ResnetTargetDown")


def memory_limit(bench: Bench) -> None:
    """Run a server in a control group, whose limit is then set just above what is in use."""
    group = control_group()
    try:
        join = f"import os; open('{group}/cgroup.procs', 'w').write(str(os.getpid()))"
        with bench.server("memory", patch=join):
            used = memory_of(group)
            limit = next(group / name for name in LIMITS if (group / name).exists())
            unlimited = limit.read_text()
            limit.write_text(str(int(used / 0.94)))
            bench.fires("memory", "94% of the limit in use", "ResnetMemoryNearLimit")
            limit.write_text(unlimited)
            bench.resolves("memory", "ResnetMemoryNearLimit")
    finally:
        group.rmdir()


def control_group() -> Path:
    """Return a new control group of version 1 or 2."""
    root = next(folder for folder in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")) if folder.is_dir())
    group = root / f"resnet-alerts-{os.getpid()}"
    group.mkdir()
    return group


def memory_of(group: Path) -> int:
    usage = next(group / name for name in USAGES if (group / name).exists())
    cached = re.search(r"^(?:total_)?inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    return int(usage.read_text()) - int(cached[1] if cached else 0)


def drift(bench: Bench) -> None:
    alerts = ("ResnetLabelDrift", "ResnetConfidenceDrift")
    with bench.server("drift", "--label-metrics", 8) as served:
        kinds = {name: form_of([content] * 32) for name, content in (("red", RED), ("pale", PALE))}
        _, content_type = kinds["red"]
        with PacedLoad(lambda: [served.port], [kinds["red"][0]], 5, "/classify/batch", content_type) as load:
            wait_until(lambda: served.sample("resnet_confidence_count") > 5000)
            load.bodies, load.rate = [kinds["pale"][0]], 1.5
            bench.fires("drift", "another kind of images for more than an hour", *alerts)
            load.rate = 0
            bench.resolves("drift", *alerts)


def form_of(files: list[bytes]) -> tuple[bytes, str]:
    """Return a multipart form of images, and its content type."""
    parts = [
        b'--cut\r\ncontent-disposition: form-data; name="files"; filename="%d"\r\n\r\n%b\r\n' % (number, content)
        for number, content in enumerate(files)
    ]
    return b"".join(parts) + b"--cut--\r\n", "multipart/form-data; boundary=cut"


def ask_all_panels(bench: Bench) -> None:
    """Run every query of the dashboard while the servers are loaded."""
    wait_until(lambda: bench.monitoring.value('resnet:confidence_drop:1h{instance="drift"}') is not None)
    time.sleep(2)
    variables = {"__rate_interval": "3s", "job": ".*", "instance": ".*"}
    for title, query in panels(variables):
        if not bench.monitoring.query(query):
            bench.empty_panels.append(f"{title}: {query}")


SCENARIOS = (kill_workers, overload, broken_model, bad_version, blocked_log, fallback_and_end, memory_limit, drift)


@pytest.fixture(scope="module")
def bench(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Run all faults, and return what the monitoring has seen of them."""
    folder = tmp_path_factory.mktemp("prometheus")
    notified: list[dict[str, Any]] = []
    with (
        webhook(notified) as url,
        alertmanager(folder, factor=FACTOR, webhook=url) as port,
        prometheus(folder, factor=FACTOR, alertmanager_port=port) as monitoring,
    ):
        seen = Bench(monitoring, models, folder, notified=notified)
        is_over = threading.Event()

        def poll() -> None:
            while not is_over.is_set():
                seen.firing = monitoring.firing()
                time.sleep(0.1)

        poller = threading.Thread(target=poll)
        poller.start()
        try:
            with ThreadPoolExecutor(len(SCENARIOS) + 1) as pool:
                for done in [pool.submit(scenario, seen) for scenario in (*SCENARIOS, ask_all_panels)]:
                    done.result()
            seconds_until(lambda: any(alert["status"] == "resolved" for alert in notified), 20)
        finally:
            is_over.set()
            poller.join()
        print("\n" + "\n".join(table(seen)))  # noqa: T201
        yield seen


def names_of_alerts() -> list[str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule]


@pytest.mark.parametrize("alert", names_of_alerts())
def test_an_alert_fires_by_its_fault_and_resolves_afterwards(bench: Bench, alert: str) -> None:
    observed = bench.alerts[alert]
    assert observed.fired_s is not None, f"{observed.fault}: it did not fire"
    assert observed.resolved_s is not None, f"{observed.fault}: it did not resolve"


def test_every_panel_of_the_dashboard_has_data_while_servers_are_loaded(bench: Bench) -> None:
    assert bench.empty_panels == []


def test_notifications_have_a_section_to_read_and_end(bench: Bench) -> None:
    links = {alert["labels"]["alertname"]: alert["annotations"]["runbook_url"] for alert in bench.notified}
    assert links.keys() >= {"ResnetWorkerDying", "ResnetOverloaded", "ResnetReloadRefused"}
    assert all(link == f"docs/operations.md#{name.lower()}" for name, link in links.items())
    assert any(alert["status"] == "resolved" for alert in bench.notified)
