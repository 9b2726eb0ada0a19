"""Clients that send requests at a given rate, whether or not the earlier ones were answered."""

import asyncio
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Self

_LONGEST_S = 20.0


@dataclass
class PacedLoad:
    """A stream of requests from a thread of its own, each on a new connection to the next of the servers.

    Rate, bodies and servers may change while it runs.
    """

    ports: Callable[[], Sequence[int]]
    bodies: Sequence[bytes]
    rate: float  # requests a second
    path: str = "/classify"
    content_type: str = "application/octet-stream"
    chance: random.Random | None = None  # a Poisson process to servers at random; None: even intervals, in turn
    statuses: Counter[int] = field(default_factory=Counter)  # 0: no response
    latencies_s: list[float] = field(default_factory=list)  # of responses with 200
    served_by: Counter[int] = field(default_factory=Counter)  # port of each response with 200

    def __enter__(self) -> Self:
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._send_all()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    async def _send_all(self) -> None:
        requests: set[asyncio.Task[None]] = set()
        due = time.monotonic()
        for number in itertools.count():
            if self._is_stopped.is_set():
                break
            ports = self.ports()
            if self.rate > 0 and ports:
                body = self.bodies[number % len(self.bodies)]
                port = ports[number % len(ports)] if self.chance is None else self.chance.choice(ports)
                request = asyncio.create_task(self._send(port, body))
                requests.add(request)
                request.add_done_callback(requests.discard)
            due = max(due + self._interval_s(), time.monotonic() - 1)  # a stopped machine owes no more than 1 s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        if requests:
            await asyncio.wait(requests, timeout=_LONGEST_S)

    def _interval_s(self) -> float:
        if self.rate <= 0:
            return 0.05
        return 1 / self.rate if self.chance is None else self.chance.expovariate(self.rate)

    async def _send(self, port: int, body: bytes) -> None:
        started = time.monotonic()
        try:
            status = await asyncio.wait_for(self._exchange(port, body), _LONGEST_S)
        except (OSError, TimeoutError, ValueError, IndexError):
            status = 0
        self.statuses[status] += 1
        if status == 200:
            self.latencies_s.append(time.monotonic() - started)
            self.served_by[port] += 1

    async def _exchange(self, port: int, body: bytes) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            head = f"POST {self.path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-type: {self.content_type}\r\n"
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.read()
            return int(answer.split(b" ", 2)[1])
        finally:
            writer.close()
