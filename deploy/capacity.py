"""Number of servers for a load, by simulation: in normal operation, with a zone lost, and during a rolling update.

python -m deploy.capacity --image-ms 20 --rate 400
python -m deploy.capacity --image-ms 20 --trace day.csv --balancer least --zones 3 --p99-ms 200

The time of an image and the number of threads are those of one of your servers under load:
    rate(resnet_engine_busy_seconds_total[5m]) / rate(resnet_pictures_total[5m])
    resnet_engine_threads
A trace is a file with lines `seconds,requests a second`. docs/capacity.md describes the method and its limits.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.simulation import Balancer, Clients, Faults, Outcome, Segment, ServerModel, simulate

_SECONDS = 60.0  # of a constant rate
_MOST_SERVERS = 500  # of a simulation; a larger service is built of cells
_TARGET = 0.7  # load that the autoscaler keeps


@dataclass(frozen=True, slots=True)
class Objective:
    """What has to hold for a number of servers to be enough."""

    p99_s: float = 1.0
    success: float = 0.99

    def holds(self, outcome: Outcome, *, is_normal: bool) -> bool:
        """Return whether an outcome is good enough.

        With a fault, 90% of the requests have to meet the time: those that met the lost servers are repeated after a
        pause, which no number of servers shortens.
        """
        return outcome.success >= self.success and outcome.quantile_s(0.99 if is_normal else 0.9) <= self.p99_s


@dataclass(frozen=True, slots=True)
class Plan:
    """A load, and the servers that carry it."""

    model: ServerModel
    trace: tuple[Segment, ...]
    balancer: Balancer = "random"
    clients: Clients = Clients()  # noqa: RUF009  # frozen
    zones: int = 1
    noticed_after_s: float = 4.0
    replaced_in_s: float = 5.0

    @property
    def seconds(self) -> float:
        """The length of the trace."""
        return sum(seconds for seconds, _ in self.trace)

    @property
    def highest_rate(self) -> float:
        """The highest rate of the trace, in requests a second."""
        return max(rate for _, rate in self.trace)

    def lower_bound(self) -> int:
        """Return the servers that could carry the highest rate if all of them were always busy."""
        return max(1, math.ceil(self.highest_rate * self.model.image_s / self.model.threads))

    def run(self, servers: int, faults: Faults) -> Outcome:
        """Return what becomes of the load with so many servers."""
        return simulate(self.model, servers, self.trace, balancer=self.balancer, clients=self.clients, faults=faults)

    def cases(self) -> dict[str, Faults]:
        """Return the situations that the servers have to carry."""
        third = self.seconds / 3
        update = Faults(update_at_s=third, replaced_in_s=self.replaced_in_s)
        cases = {"normal": Faults(zones=self.zones), "rolling update": replace(update, zones=self.zones)}
        if self.zones > 1:
            lost = Faults(zones=self.zones, zone_lost_at_s=third, noticed_after_s=self.noticed_after_s)
            cases["zone lost"] = lost
        return cases


def fewest(holds: Callable[[int], bool], first: int) -> int:
    """Return the smallest number from `first` on for which a rising condition holds. Raises ValueError beyond 500."""
    high = first
    while not holds(high):
        if high >= _MOST_SERVERS:
            raise ValueError(f"{_MOST_SERVERS} servers are not enough; lower the rate, and build the service of cells")
        first, high = high + 1, min(_MOST_SERVERS, high + max(1, high // 4))
    while first < high:
        middle = (first + high) // 2
        first, high = (first, middle) if holds(middle) else (middle + 1, high)
    return high


def report(plan: Plan, objective: Objective) -> list[str]:
    """Return a table of the servers that each situation needs, and what they do then."""
    lines = ["| situation | servers | success | p50 | p99 | load | sent ÷ requests |", "|---|---|---|---|---|---|---|"]
    least = plan.lower_bound()
    for name, faults in plan.cases().items():

        def holds(servers: int, name: str = name, faults: Faults = faults) -> bool:
            return objective.holds(plan.run(servers, faults), is_normal=name == "normal")

        servers = fewest(holds, least)
        outcome = plan.run(servers, faults)
        load = outcome.busy_s / (servers * plan.model.threads * plan.seconds)
        times = " | ".join(f"{1000 * outcome.quantile_s(q):.0f} ms" for q in (0.5, 0.99))
        repeated = outcome.sent / max(1, outcome.requests)
        lines.append(f"| {name} | {servers} | {outcome.success:.2%} | {times} | {load:.0%} | {repeated:.2f} |")
    by_target = math.ceil(plan.highest_rate * plan.model.image_s / plan.model.threads / _TARGET)
    lines.append(f"\nThe autoscaler with a target of {_TARGET:.0%} would run {by_target} at the highest rate.")
    return lines


def read_trace(file: Path) -> tuple[Segment, ...]:
    """Return the segments of a trace. Raises ValueError for a line that is none."""
    segments = []
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        if line.strip() and not line.startswith("#"):
            try:
                seconds, rate = map(float, line.split(","))
            except ValueError:
                raise ValueError(f"line {number} of {file.name} is not `seconds,rate`: {line!r}") from None
            segments.append((seconds, rate))
    if not any(seconds > 0 and rate > 0 for seconds, rate in segments):
        raise ValueError(f"there are no requests in {file.name}; write lines of `seconds,rate`")
    return tuple(segments)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deploy.capacity", description=__doc__.splitlines()[0])
    parser.add_argument("--image-ms", type=float, required=True, help="engine time of an image, in one thread")
    parser.add_argument("--threads", type=int, default=1, help="engine threads of a server")
    parser.add_argument("--spread", type=float, default=0.3, help="standard deviation of that time ÷ its mean")
    parser.add_argument("--overhead-ms", type=float, default=2.0, help="time of a response outside of the engine")
    parser.add_argument("--longest-wait-s", type=float, default=5.0, help="--max-queue-age-s of the servers")
    load = parser.add_mutually_exclusive_group(required=True)
    load.add_argument("--rate", type=float, help="requests a second")
    load.add_argument("--trace", type=Path, help="file of lines `seconds,requests a second`")
    parser.add_argument("--balancer", choices=("random", "least", "two"), default="random")
    parser.add_argument("--retries", type=int, default=2, help="repetitions of a refused or lost request")
    parser.add_argument("--zones", type=int, default=1, help="failure domains; with several, the loss of one is a case")
    parser.add_argument("--p99-ms", type=float, default=1000.0, help="objective: the slowest 1%%")
    parser.add_argument("--success", type=float, default=0.99, help="objective: the share of answered requests")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table, and return the exit status."""
    given = _arguments(words)
    try:
        plan = Plan(
            ServerModel(
                given.image_ms / 1000,
                given.threads,
                longest_wait_s=given.longest_wait_s,
                overhead_s=given.overhead_ms / 1000,
                spread=given.spread,
            ),
            read_trace(given.trace) if given.trace is not None else ((_SECONDS, given.rate),),
            balancer=given.balancer,
            clients=Clients(retries=given.retries),
            zones=given.zones,
        )
        lines = report(plan, Objective(given.p99_ms / 1000, given.success))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"capacity: {error}\n")
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
