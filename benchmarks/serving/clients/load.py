"""The two kinds of load. Open: requests come when the schedule says, whatever the server does. Closed: so many clients,
each of which asks again the moment it is answered.

In the open kind latency counts from the scheduled moment, so a server that stalls is charged for every request that
came meanwhile (no coordinated omission). A request takes a connection that is idle and has not been refused within the
last 0.25 s; if there is none a new one; at the limit one that was refused just now, which is counted separately.
"""

import abc
import gc
import itertools
import math
import resource
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.serving.clients.connections import RESTED_S, Answer, Connection, Connections, Question, clock
from benchmarks.serving.clients.figures import BROKEN, Outcome, quantile

_FIRST_CONNECTIONS = 64
_FIRST_S = 2.0  # of the schedule: so many requests have a connection each, before the first is sent
_OPENED_AT_ONCE = 64  # fewer than any listen backlog
_ACCEPT_S = 0.01
_MAX_CONNECTIONS = 2048
_LONGEST_WAIT_S = 0.05
_GIVE_UP_S = 10.0  # after the last request was due

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Load:
    """The measurements of one load, and the resources of the generator."""

    outcomes: list[Outcome]
    seconds: float
    generator_cpu: float  # cores: 0.1 is a tenth of one
    send_lag_p99_s: float  # how late requests were sent though a connection was free: the generator's own weakness
    late_share: float  # of the requests: all connections that there may be were busy with the server when it was due


class _Run(abc.ABC):
    """The common part of both kinds: the clock, the questions in turn, the outcomes."""

    def __init__(self, address: Address, questions: Sequence[Question]) -> None:
        self.connections = Connections(address, self.on_answer)
        self.questions = itertools.cycle(questions)
        self.outcomes: list[Outcome] = []
        self.lags: list[float] = []
        self.late_count = 0
        self.outstanding: set[Connection] = set()
        self.cpu_before = time.process_time()
        self.started = clock()

    def ask(self, connection: Connection, scheduled_at: float) -> None:
        self.outstanding.add(connection)
        self.connections.ask(connection, next(self.questions), scheduled_at)

    def on_answer(self, connection: Connection, answer: Answer) -> None:
        now = clock()
        self.outstanding.discard(connection)
        self.outcomes.append(
            Outcome(
                connection.scheduled_at - self.started,
                now - connection.scheduled_at,
                answer.status,
                answer.is_right,
                connection.scheduled_at - connection.refused_at >= RESTED_S,
                answer.retry_after_s,
            )
        )
        if answer.status == 503:
            connection.refused_at = now
        self.go_on(connection, now)

    @abc.abstractmethod
    def go_on(self, connection: Connection, now: float) -> None:
        """Decide what a connection does after its answer."""

    def finish(self) -> Load:
        now = clock()
        for connection in self.outstanding:
            scheduled_s = connection.scheduled_at - self.started
            self.outcomes.append(Outcome(scheduled_s, now - connection.scheduled_at, BROKEN, False, True, None))
        self.connections.close()
        seconds = now - self.started
        cpu = (time.process_time() - self.cpu_before) / seconds
        lag_s = quantile(self.lags, 0.99) if self.lags else 0.0
        return Load(self.outcomes, seconds, cpu, lag_s, self.late_count / max(1, len(self.outcomes)))


class _Open(_Run):
    def __init__(self, address: Address, questions: Sequence[Question], schedule: Sequence[float]) -> None:
        super().__init__(address, questions)
        self.idle: deque[Connection] = deque()
        self.resting: deque[Connection] = deque()  # refused lately, the longest ago first
        self.late: deque[float] = deque()  # scheduled, and no connection to be had
        # The workers that share a listener get requests in no fixed order from many connections. A connection that is
        # idle for longer is closed by the server.
        early = sum(scheduled_s < _FIRST_S for scheduled_s in schedule)
        for number in range(max(_FIRST_CONNECTIONS, min(early, _MAX_CONNECTIONS))):
            self.idle.append(self.connections.open())
            if (number + 1) % _OPENED_AT_ONCE == 0:
                self.connections.wait(_ACCEPT_S)
        self.started = clock()

    def go_on(self, connection: Connection, now: float) -> None:
        is_open = self.connections.is_open(connection)
        if self.late:
            self.ask(connection if is_open else self.connections.open(), self.late.popleft())
        elif is_open:
            (self.resting if now - connection.refused_at < RESTED_S else self.idle).append(connection)

    def send(self, scheduled_at: float, now: float) -> None:
        connection = self._take(now)
        if connection is None:
            self.late.append(scheduled_at)
            self.late_count += 1
            return
        self.lags.append(now - scheduled_at)
        self.ask(connection, scheduled_at)

    def finish(self) -> Load:
        for scheduled_at in self.late:  # never sent: the server kept every connection busy to the end
            waited_s = clock() - scheduled_at
            self.outcomes.append(Outcome(scheduled_at - self.started, waited_s, BROKEN, False, True, None))
        return super().finish()

    def _take(self, now: float) -> Connection | None:
        while self.resting and now - self.resting[0].refused_at >= RESTED_S:
            self.idle.append(self.resting.popleft())
        for pool, may_open in ((self.idle, True), (self.resting, False)):
            while pool:
                connection = pool.popleft()
                if self.connections.is_open(connection):
                    return connection
            if may_open and len(self.connections) < _MAX_CONNECTIONS:
                return self.connections.open()
        return None


class _Closed(_Run):
    def __init__(self, address: Address, questions: Sequence[Question], clients: int, seconds: float) -> None:
        super().__init__(address, questions)
        self.ends_at = self.started + seconds
        for _ in range(clients):
            self.ask(self.connections.open(), clock())

    def go_on(self, connection: Connection, now: float) -> None:
        if now < self.ends_at:
            self.ask(connection if self.connections.is_open(connection) else self.connections.open(), now)


def open_loop(
    address: Address,
    questions: Sequence[Question],
    schedule: Sequence[float],
    *,
    at: Callable[[float], None] = lambda _: None,
) -> Load:
    """Send a request at each moment of the schedule (seconds from now), and return what became of each.

    `at` is called now and then with the seconds that have passed, to measure the server meanwhile.
    """
    _allow_many_sockets()
    gc.disable()  # a full collection over all outcomes takes tens of milliseconds, in which nothing is sent
    try:
        return _follow(schedule, _Open(address, questions, schedule), at)
    finally:
        gc.enable()


def _follow(schedule: Sequence[float], run: _Open, at: Callable[[float], None]) -> Load:
    due = iter(schedule)
    next_at = run.started + next(due, math.inf)
    gives_up_at = run.started + (schedule[-1] if schedule else 0) + _GIVE_UP_S
    while next_at < math.inf or ((run.outstanding or run.late) and clock() < gives_up_at):
        now = clock()
        while next_at <= now:
            run.send(next_at, now)
            next_at = run.started + next(due, math.inf)
        run.connections.wait(min(next_at - clock(), _LONGEST_WAIT_S))
        at(now - run.started)
    return run.finish()


def closed_loop(address: Address, questions: Sequence[Question], *, clients: int, seconds: float) -> Load:
    """Let so many clients ask for so long, each again the moment it is answered or refused."""
    _allow_many_sockets()
    run = _Closed(address, questions, clients, seconds)
    while run.outstanding and clock() < run.ends_at + _GIVE_UP_S:
        run.connections.wait(_LONGEST_WAIT_S)
    return run.finish()


def _allow_many_sockets() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
