"""Several services behind a real haproxy, and clients that send one request after the other over kept connections."""

import contextlib
import http.client
import random
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.servers.client_threads import ClientThreads

ROOT = Path(__file__).parents[3]
_START_S = 400  # of a replica, on a machine with other work
_HAPROXY = """
global
    maxconn 200
defaults
    mode {mode}
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    option redispatch
frontend clients
    bind 127.0.0.1:{port}
    default_backend replicas
backend replicas
    balance roundrobin
    option httpchk GET /health/ready
    default-server check inter 200ms fall 1 rise 1
{servers}
"""


def free_port() -> int:
    """Return a port that no client gets by chance before the server listens there."""
    while True:
        port = random.randrange(20_000, 32_000)  # below the system's range for clients
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@dataclass
class Replica:
    """A service that can be stopped and started again on the same port."""

    models: Path
    options: tuple[str, ...]
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        ports = ("--port", str(self.port), "--admin-port", str(self.admin_port))
        command = [sys.executable, "-m", "service", "--models", str(self.models), "--log", "off", *ports, *self.options]
        self.process = subprocess.Popen(command, cwd=ROOT)  # its few lines show in a failure
        deadline = time.monotonic() + _START_S
        while not self.is_ready():
            assert self.process.poll() is None, "the replica ended"
            assert time.monotonic() < deadline, "the replica does not become ready"
            time.sleep(0.1)

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError), contextlib.closing(self._connection(self.port)) as connection:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == 200
        return False

    def stop(self) -> None:
        """Send SIGTERM and wait for the end, which has to be a clean one."""
        assert self.process is not None
        self.process.terminate()
        assert self.process.wait(60) == 0

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def answered(self) -> int:
        """Return the images that this replica has classified since its start."""
        with contextlib.closing(self._connection(self.admin_port)) as connection:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        found = re.findall(r'^resnet_requests_total\{method="POST",route="/classify",status="200"\} (\S+)', text, re.M)
        return sum(int(float(number)) for number in found)

    def _connection(self, port: int) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=20)


@contextlib.contextmanager
def replicas(models: Path, count: int, *options: str) -> Iterator[list[Replica]]:
    """Start replicas, and end those that still run after the block."""
    started = [Replica(models, options) for _ in range(count)]
    try:
        for replica in started:
            replica.start()
        yield started
    finally:
        for replica in started:
            replica.kill()


@contextlib.contextmanager
def balancer(folder: Path, mode: str, behind: list[Replica]) -> Iterator[int]:
    """Run haproxy in mode tcp, which balances connections, or http, which balances requests. The value is its port."""
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("haproxy is not installed: apt-get install haproxy")
    port = free_port()
    servers = "\n".join(f"    server r{number} 127.0.0.1:{one.port}" for number, one in enumerate(behind))
    (folder / "haproxy.cfg").write_text(_HAPROXY.format(mode=mode, port=port, servers=servers))
    with subprocess.Popen([program, "-f", str(folder / "haproxy.cfg")], stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            yield port
        finally:
            process.terminate()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("haproxy does not listen")


class Load(ClientThreads):
    """Clients with kept connections, none of which repeats a request: each failure counts."""

    def __init__(self, port: int, image: bytes, clients: int = 8, pause_s: float = 0.02) -> None:
        self._port, self._image, self._pause_s = port, image, pause_s
        self.outcomes: Counter[str] = Counter()
        self.connections = 0
        super().__init__(clients, self._run)

    @property
    def failures(self) -> dict[str, int]:
        return {outcome: count for outcome, count in self.outcomes.items() if outcome != "200"}

    def _run(self, _: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        while not self._ends.wait(self._pause_s):
            is_new = connection.sock is None
            outcome = self._request(connection)
            with self._lock:
                self.outcomes[outcome] += 1
                self.connections += is_new
        connection.close()

    def _request(self, connection: http.client.HTTPConnection) -> str:
        try:
            connection.request("POST", "/classify", self._image)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return type(error).__name__
        return str(response.status)
