"""Simulation of servers behind a load balancer, request by request.

A server has engine threads, a queue in order of arrival, and the limit of the service on the expected wait: a request
that would wait longer is refused at once. Refused and lost requests are repeated after a pause, as clients do. Servers
may vanish with their zone, or be replaced one after the other. The figures of one server come from its own metrics.
"""

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Balancer = Literal["random", "least", "two"]
Segment = tuple[float, float]  # seconds, requests a second


@dataclass(frozen=True, slots=True)
class ServerModel:
    """The measured figures of one server. A batch of n images takes `batch_s + n * image_s` of one engine thread."""

    image_s: float  # on a CPU: busy seconds ÷ images
    threads: int = 1
    batch_s: float = 0.0  # on a GPU most of a small batch
    max_batch: int = 32
    longest_batch_s: float = 0.1  # a batch on a CPU has no more images than take so long
    longest_wait_s: float = 5.0  # `--max-queue-age-s`
    never_refused: int = 64  # outstanding images without that limit; 0 where `--max-queue-age-s` is set
    most_waiting: int = 256  # `--max-queue`
    overhead_s: float = 0.0  # of a response outside of the engine
    spread: float = 0.0  # standard deviation ÷ mean of the time of a batch

    def share(self, waiting: int) -> int:
        """Return how many waiting images one thread takes."""
        by_time = max(1, int(self.longest_batch_s / self.image_s))
        return min(math.ceil(waiting / self.threads), self.max_batch, by_time)


@dataclass(frozen=True, slots=True)
class Faults:
    """What happens to the servers; times in seconds from the start."""

    zones: int = 1  # servers are spread over them in turn
    zone_lost_at_s: float | None = None
    noticed_after_s: float = 4.0  # the balancer sends requests to lost servers for so long
    update_at_s: float | None = None  # servers are replaced one by one from then on
    replaced_in_s: float = 20.0  # each is absent for so long


@dataclass(frozen=True, slots=True)
class Clients:
    """How requests are repeated."""

    retries: int = 0
    pause_s: float = 1.0  # before a repetition, plus up to twice as much at random


@dataclass(slots=True)
class Outcome:
    """What became of the requests."""

    latencies_s: list[float] = field(default_factory=list)  # of answered requests, repetitions included
    refused: int = 0  # after all repetitions
    lost: int = 0  # after all repetitions
    sent: int = 0  # repetitions included
    busy_s: float = 0.0  # of all engine threads

    @property
    def requests(self) -> int:
        """The number of requests, each counted once."""
        return len(self.latencies_s) + self.refused + self.lost

    @property
    def success(self) -> float:
        """The share of answered requests."""
        return len(self.latencies_s) / max(1, self.requests)

    def quantile_s(self, q: float) -> float:
        """Return a quantile of the latency; infinity if nothing was answered."""
        ordered = sorted(self.latencies_s)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else float("inf")


@dataclass(slots=True)
class _Request:
    arrived_at: float
    left: int  # repetitions


_Note = Callable[[float, _Request], None]  # of the end of a request


class _Server:
    """Engine threads and their queue. It stands still until somebody looks at it, and then catches up."""

    def __init__(self, model: ServerModel, zone: int, work_s: Callable[[int], float], note: _Note) -> None:
        self.zone = zone
        self.absent_from, self.absent_until, self.hidden_from = float("inf"), float("inf"), float("inf")
        self._model, self._work_s, self._note = model, work_s, note
        self._free_at = [0.0] * model.threads
        self._waiting: deque[tuple[float, _Request]] = deque()  # with the moment of their arrival here
        self._running: list[tuple[float, int, list[_Request]]] = []  # batches by their end
        self._batches = 0
        self._last_batch_s = 0.0
        self._nearly_empty_at = 0.0

    def outstanding(self, now: float) -> int:
        """Return how many requests have no response, as the balancer counts them."""
        self.settle(now)
        return len(self._waiting) + sum(len(batch) for _, _, batch in self._running)

    def is_absent(self, now: float) -> bool:
        return self.absent_from <= now < self.absent_until

    def is_hidden(self, now: float) -> bool:
        """Return whether the balancer knows that the server is absent."""
        return self.hidden_from <= now < self.absent_until

    def accept(self, now: float, request: _Request) -> bool:
        """Queue a request; return False for a refusal, by the rules of service/batching/load_shedding.py."""
        outstanding = self.outstanding(now)
        wait_s = len(self._waiting) * self._model.image_s / self._model.threads
        if len(self._waiting) >= self._model.most_waiting:
            return False
        if wait_s > self._longest_wait_s(now, wait_s) and outstanding >= max(1, self._model.never_refused):
            return False
        self._waiting.append((now, request))
        self.settle(now)
        return True

    def _longest_wait_s(self, now: float, wait_s: float) -> float:
        longest_s = self._model.longest_wait_s
        if wait_s <= 0.05 * longest_s:
            self._nearly_empty_at = now
        if now - self._nearly_empty_at > longest_s:
            return 0.4 * longest_s
        return max(0.0, longest_s - 2 * self._last_batch_s)

    def settle(self, now: float) -> None:
        """Start the batches that threads have taken until now, and report those that have ended."""
        while self._waiting and (start := max(self._free_at[0], self._waiting[0][0])) <= now:
            present = sum(1 for arrived_at, _ in self._waiting if arrived_at <= start)
            batch = [self._waiting.popleft()[1] for _ in range(self._model.share(present))]
            self._last_batch_s = self._work_s(len(batch))
            heapq.heapreplace(self._free_at, start + self._last_batch_s)
            self._batches += 1
            heapq.heappush(self._running, (start + self._last_batch_s, self._batches, batch))
        while self._running and self._running[0][0] <= now:
            end, _, batch = heapq.heappop(self._running)
            for request in batch:
                self._note(end, request)

    def vanish(self, now: float) -> list[_Request]:
        """Drop all open requests and return them."""
        self.settle(now)
        lost = [request for _, request in self._waiting]
        lost += [request for _, _, batch in self._running for request in batch]
        self._waiting.clear()
        self._running.clear()
        self._free_at = [now] * self._model.threads
        return lost


def arrivals(trace: Sequence[Segment], chance: random.Random) -> Iterator[float]:
    """Yield the moments of a Poisson process whose rate follows the trace."""
    begin = 0.0
    for seconds, rate in trace:
        now, end = begin, begin + seconds
        while rate > 0 and (now := now + chance.expovariate(rate)) < end:
            yield now
        begin = end


_CHOICES: dict[str, Callable[[Sequence[_Server], float, random.Random], _Server]] = {
    "random": lambda servers, now, chance: chance.choice(servers),
    "least": lambda servers, now, chance: min(servers, key=lambda one: (one.outstanding(now), chance.random())),
    "two": lambda servers, now, chance: min(chance.choices(servers, k=2), key=lambda one: one.outstanding(now)),
}


def simulate(
    model: ServerModel,
    servers: int,
    trace: Sequence[Segment],
    *,
    balancer: Balancer = "random",
    clients: Clients = Clients(),
    faults: Faults = Faults(),
    seed: int = 0,
) -> Outcome:
    """Return what becomes of the requests of a trace. Equal arguments have equal results."""
    return _Run(model, servers, balancer, clients, faults, seed).run(trace)


class _Run:
    def __init__(
        self, model: ServerModel, servers: int, balancer: Balancer, clients: Clients, faults: Faults, seed: int
    ) -> None:
        if servers < 1 or model.image_s <= 0:
            raise ValueError(f"servers {servers} and image_s {model.image_s} must be positive")
        self._model, self._choose, self._clients, self._faults = model, _CHOICES[balancer], clients, faults
        self._chance = random.Random(seed)  # noqa: S311
        self._servers = [
            _Server(model, number % faults.zones, self._work_s, self._note_answer) for number in range(servers)
        ]
        self._again: list[tuple[float, int, _Request]] = []
        self._numbers = itertools.count()
        self._lost_at_s = float("inf") if faults.zone_lost_at_s is None else faults.zone_lost_at_s
        self._outcome = Outcome()

    def run(self, trace: Sequence[Segment]) -> Outcome:
        self._plan_faults()
        for arrival in arrivals(trace, self._chance):
            self._repeat_until(arrival)
            self._send(arrival, _Request(arrival, self._clients.retries))
        self._repeat_until(float("inf"))
        for server in self._servers:
            server.settle(float("inf"))
        return self._outcome

    def _repeat_until(self, now: float) -> None:
        """Send the repetitions that are due, and let the zone vanish when it is time."""
        while self._again and self._again[0][0] <= now:
            moment, _, request = heapq.heappop(self._again)
            self._lose_zone(moment)
            self._send(moment, request)
        self._lose_zone(now)

    def _lose_zone(self, now: float) -> None:
        if now < self._lost_at_s or now == float("inf"):
            return
        moment, self._lost_at_s = self._lost_at_s, float("inf")
        for server in self._servers:
            if server.zone == 0:
                for request in server.vanish(moment):
                    self._repeat(moment, request, is_refusal=False)

    def _plan_faults(self) -> None:
        faults = self._faults
        if faults.zone_lost_at_s is not None:
            for server in self._servers[:: faults.zones]:
                server.absent_from = faults.zone_lost_at_s
                server.hidden_from = faults.zone_lost_at_s + faults.noticed_after_s
        if faults.update_at_s is not None:
            for number, server in enumerate(self._servers):  # drained first, so nothing is lost
                server.hidden_from = faults.update_at_s + number * faults.replaced_in_s
                server.absent_until = server.hidden_from + faults.replaced_in_s

    def _send(self, now: float, request: _Request) -> None:
        self._outcome.sent += 1
        visible = [server for server in self._servers if not server.is_hidden(now)]
        server = self._choose(visible, now, self._chance) if visible else None
        if server is None or server.is_absent(now):
            self._repeat(now, request, is_refusal=False)
            return
        if not server.accept(now, request):
            self._repeat(now, request, is_refusal=True)

    def _note_answer(self, end: float, request: _Request) -> None:
        self._outcome.latencies_s.append(end - request.arrived_at + self._model.overhead_s)

    def _work_s(self, images: int) -> float:
        """Return the time of one batch, from a gamma distribution with the measured mean and spread."""
        seconds = self._model.batch_s + images * self._model.image_s
        if self._model.spread > 0:
            shape = self._model.spread**-2
            seconds = self._chance.gammavariate(shape, seconds / shape)
        self._outcome.busy_s += seconds
        return seconds

    def _repeat(self, now: float, request: _Request, *, is_refusal: bool) -> None:
        if request.left > 0:
            pause_s = self._clients.pause_s * (1 + 2 * self._chance.random())
            again = _Request(request.arrived_at, request.left - 1)
            heapq.heappush(self._again, (now + pause_s, next(self._numbers), again))
        elif is_refusal:
            self._outcome.refused += 1
        else:
            self._outcome.lost += 1
