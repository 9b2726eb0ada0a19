"""The simulation of three servers agrees with three real servers within 15%.

The servers' engine is slowed down to 20 ms an image. Its time and the time outside of it come from the metrics and from
a run with little load, as an operator would measure them. `pytest -s` prints the table.
"""

import contextlib
import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.simulation import ServerModel, simulate
from tests.support.monitoring.paced_load import PacedLoad
from tests.support.monitoring.slow_engine import SLOW_ENGINE
from tests.support.servers.served import Served, serving

SERVERS, SECONDS = 3, 20.0
WAIT_S = 0.5
LOADS = (0.4, 0.7, 1.6)  # of the capacity

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]


@dataclass
class Figures:
    """What an operator sees of a run."""

    answered: float  # a second
    success: float
    mean_s: float
    p90_s: float

    def values(self) -> list[float]:
        return [self.answered, self.success, self.mean_s, self.p90_s]


def measured(servers: list[Served], body: bytes, rate: float) -> Figures:
    """Load the servers by a Poisson process, each request to a server at random."""
    ports = [served.port for served in servers]
    started = time.monotonic()
    with PacedLoad(lambda: ports, [body], rate, chance=random.Random(1)) as load:
        time.sleep(SECONDS)
        took_s = time.monotonic() - started
    return figures(load.latencies_s, sum(load.statuses.values()), took_s)


def simulated(model: ServerModel, rate: float) -> Figures:
    outcome = simulate(model, SERVERS, [(SECONDS * 5, rate)], seed=2)
    return figures(outcome.latencies_s, outcome.requests, SECONDS * 5)


def figures(latencies_s: list[float], requests: int, seconds: float) -> Figures:
    tenths = statistics.quantiles(latencies_s, n=10)
    answered = len(latencies_s)
    return Figures(answered / seconds, answered / requests, statistics.fmean(latencies_s), tenths[-1])


def model_of(servers: list[Served], body: bytes) -> ServerModel:
    """Measure one image's time in the engine, and what a response takes besides."""
    before = [busy_and_images(served) for served in servers]
    idle = measured(servers, body, 6.0)
    after = [busy_and_images(served) for served in servers]
    busy_s, images = (sum(new[at] - old[at] for old, new in zip(before, after, strict=True)) for at in (0, 1))
    image_s = busy_s / images
    waiting_s = image_s * (6.0 / SERVERS * image_s) / 2
    overhead_s = max(0.0, idle.mean_s - image_s - waiting_s)
    return ServerModel(image_s, longest_wait_s=WAIT_S, never_refused=0, overhead_s=overhead_s)


def busy_and_images(served: Served) -> tuple[float, float]:
    return served.sample("resnet_engine_busy_seconds_total"), served.sample("resnet_pictures_total")


@pytest.fixture(scope="module")
def comparison(models: Path, red: bytes) -> Iterator[dict[float, tuple[Figures, Figures]]]:
    options = ("--processes", 1, "--engine-threads", 1, "--max-queue-age-s", WAIT_S)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serving(models, *options, patch=SLOW_ENGINE)) for _ in range(SERVERS)]
        model = model_of(servers, red)
        rates = {load: load * SERVERS / model.image_s for load in LOADS}
        found = {load: (measured(servers, red, rate), simulated(model, rate)) for load, rate in rates.items()}
    print("\n" + "\n".join(table(model, found)))  # noqa: T201
    yield found


def table(model: ServerModel, found: dict[float, tuple[Figures, Figures]]) -> Iterator[str]:
    yield f"image {1000 * model.image_s:.1f} ms, besides {1000 * model.overhead_s:.1f} ms"
    yield "| load | | answered a second | success | mean | p90 |\n|---|---|---|---|---|---|"
    for load, pair in found.items():
        for name, one in zip(("real", "simulated"), pair, strict=True):
            times = " | ".join(f"{1000 * seconds:.0f} ms" for seconds in (one.mean_s, one.p90_s))
            yield f"| {load:.0%} | {name} | {one.answered:.1f} | {one.success:.1%} | {times} |"


@pytest.mark.parametrize("load", LOADS)
def test_the_simulation_agrees_with_three_real_servers(
    comparison: dict[float, tuple[Figures, Figures]], load: float
) -> None:
    real, simulation = comparison[load]
    assert simulation.values()[:2] == pytest.approx(real.values()[:2], rel=0.15)  # answered a second, success
    # The simulation has no limit on queues that stay full, so its times are longer in overload.
    assert simulation.values()[2:] == pytest.approx(real.values()[2:], rel=0.35)
