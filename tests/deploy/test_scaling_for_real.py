"""Replicas follow a load step, 1 to 3 to 1, by the shipped rule on a real Prometheus; the replicas are real servers.

Their engine is slowed down to 20 ms an image, so that three of them fit on a small machine. All times are divided by
15: a decision each second instead of 15 s, and a stabilization window of 20 s instead of 300 s.
"""

import contextlib
import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.monitoring.autoscaler import Autoscaler, problems
from tests.support.monitoring.paced_load import PacedLoad
from tests.support.monitoring.prometheus import Prometheus, needs_prometheus, prometheus
from tests.support.monitoring.slow_engine import SLOW_ENGINE
from tests.support.servers.served import Served, serving

FACTOR = 15
LOAD = "resnet:load:rate1m"
IMAGES_BY_COUNTER = 300.0  # the planted fault: "300 images for each replica", of a counter that never falls
LOW, HIGH = 15.0, 80.0  # images a second: a third of a replica's capacity, and nearly two of them
_STEP_S, _END_S = 12.0, 50.0
_LONGEST_S = 120.0

pytestmark = [pytest.mark.long, pytest.mark.timeout(300), needs_prometheus]


@dataclass
class Replicas:
    """The servers that run or start."""

    monitoring: Prometheus
    models: Path
    ready: dict[str, Served] = field(default_factory=dict)
    _ends: dict[str, threading.Event] = field(default_factory=dict)
    _threads: list[threading.Thread] = field(default_factory=list)

    def scale_to(self, count: int) -> None:
        """Start or stop servers; the newest one stops first."""
        while len(self._ends) < count:
            name = f"replica-{len(self._ends)}-{len(self._threads)}"
            self._ends[name] = threading.Event()
            self._threads.append(threading.Thread(target=self._run, args=(name, self._ends[name])))
            self._threads[-1].start()
        while len(self._ends) > count:
            self._ends.popitem()[1].set()

    def _run(self, name: str, end: threading.Event) -> None:
        options = ("--processes", 1, "--engine-threads", 1, "--max-queue", 16)
        with serving(self.models, *options, patch=SLOW_ENGINE) as served:
            self.monitoring.scrape(**{name: served})
            self.ready[name] = served
            end.wait()
            del self.ready[name]  # as a Service does; requests on their way are still answered
            self.monitoring.forget(name)

    def ports(self) -> list[int]:
        return [served.port for served in list(self.ready.values())]

    def stop(self) -> None:
        self.scale_to(0)
        for thread in self._threads:
            thread.join(60)


@dataclass
class Run:
    """Replicas over time, by the rule and by the planted fault, and the load that they had."""

    by_load: list[int] = field(default_factory=list)
    by_counter: list[int] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    refused_at_the_end_of_the_step: int = 0


def values(monitoring: Prometheus, query: str) -> list[float]:
    found = (float(sample["value"][1]) for sample in monitoring.query(query))
    return [value for value in found if math.isfinite(value)]


@pytest.fixture(scope="module")
def run(models: Path, red: bytes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Drive the step: low, high, and low again until one replica is left."""
    seen = Run()
    with prometheus(tmp_path_factory.mktemp("prometheus"), factor=FACTOR) as monitoring:
        replicas = Replicas(monitoring, models)
        with contextlib.ExitStack() as stack:
            stack.callback(replicas.stop)
            replicas.scale_to(1)
            load = stack.enter_context(PacedLoad(replicas.ports, [red], LOW))
            drive(monitoring, replicas, load, seen)
        seen.statuses = dict(load.statuses)
    print("\n" + "\n".join(seen.lines), seen.statuses)  # noqa: T201
    yield seen


def drive(monitoring: Prometheus, replicas: Replicas, load: PacedLoad, seen: Run) -> None:
    by_load = Autoscaler(target=0.7, most=6, stabilization_s=300 / FACTOR)
    by_counter = Autoscaler(target=IMAGES_BY_COUNTER, most=6, stabilization_s=300 / FACTOR)
    while len(values(monitoring, LOAD)) < 1:
        time.sleep(0.1)
    started, refused = time.monotonic(), 0
    while (now := time.monotonic() - started) < _LONGEST_S:
        load.rate = HIGH if _STEP_S <= now < _END_S else LOW
        if now < _END_S - 10:
            refused = load.statuses[503]
        elif now < _END_S:
            seen.refused_at_the_end_of_the_step = load.statuses[503] - refused
        loads = values(monitoring, LOAD)
        replicas.scale_to(by_load.decide(loads, now))
        seen.by_load.append(by_load.replicas)
        seen.by_counter.append(by_counter.decide(values(monitoring, "resnet_pictures_total"), now))
        seen.lines.append(
            f"{now:5.0f} s {load.rate:4.0f}/s load {[round(one, 2) for one in loads]} -> {by_load.replicas}"
        )
        if now > _END_S + 5 and by_load.replicas == 1:
            return
        time.sleep(15 / FACTOR)


def test_the_load_scales_out_and_in_again_without_oscillation(run: Run) -> None:
    assert problems(run.by_load, most=3) == []


def test_the_new_replicas_end_the_refusals(run: Run) -> None:
    assert run.refused_at_the_end_of_the_step == 0


def test_no_request_is_lost_while_replicas_come_and_go(run: Run) -> None:
    assert set(run.statuses) <= {200, 503}
    assert run.statuses[200] > 1000


def test_scaling_on_a_counter_is_found_to_be_wrong(run: Run) -> None:
    assert problems(run.by_counter, most=3) != []
    assert run.by_counter[-1] > 1
