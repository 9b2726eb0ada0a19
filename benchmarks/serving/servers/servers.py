"""The servers that are compared: how each one starts, what it is sent, how it ends."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving.servers import processes
from benchmarks.serving.servers.workload import Workload
from service.system.cores import available_cores

ROOT = Path(__file__).parents[3]
OURS = "this service"
_PEERS = "benchmarks.serving.peers"
_START_S, _STOP_S = 90.0, 15.0
_CHECKS_OF_EACH_IMAGE = 2


class ServerFailed(Exception):
    """A server did not start or answered wrong. The message is one line for the table."""


@dataclass(frozen=True, slots=True)
class Launch:
    """The parts of a command line."""

    python: Path  # of the environment that the peers are installed in
    port: int
    workload: Workload
    options: tuple[str, ...]  # for our service only

    def tool(self, name: str) -> str:
        return str(self.python.parent / name)


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the servers."""

    name: str
    how: str  # it is run, for the reader of the table
    command: Callable[[Launch], list[str]]
    takes_form: bool = True
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers right."""

    kind: Kind
    workload: Workload
    address: tuple[str, int]
    session: int


def _ours(launch: Launch) -> list[str]:
    ports = ["--port", str(launch.port), "--admin-port", str(free_port())]
    return [sys.executable, "-m", "service", "--models", str(launch.workload.models), *ports, *launch.options]


def _uvicorn(workers: int) -> Callable[[Launch], list[str]]:
    def command(launch: Launch) -> list[str]:
        quiet = ["--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning"]
        place = ["--port", str(launch.port), "--workers", str(workers)]
        return [launch.tool("uvicorn"), f"{_PEERS}.naive_fastapi:app", *place, *quiet]

    return command


def _mosec(launch: Launch) -> list[str]:
    place = ["--address", "127.0.0.1", "--port", str(launch.port)]
    return [str(launch.python), "-m", f"{_PEERS}.mosec_server", *place, "--timeout", "60000", "--log-level", "warning"]


def _litserve(launch: Launch) -> list[str]:
    return [str(launch.python), "-m", f"{_PEERS}.litserve_server", str(launch.port)]


def _bentoml(launch: Launch) -> list[str]:
    place = ["--host", "127.0.0.1", "--port", str(launch.port)]
    return [launch.tool("bentoml"), "serve", f"{_PEERS}.bentoml_server:Classify", *place]


CORES = available_cores()
SERVICE = Kind(
    OURS, "serve-resnet with its defaults; a multipart form, or bare bytes beside a peer that takes those", _ours
)
PEERS = {
    "fastapi": Kind("FastAPI", "one process, intra-op threads = cores, spinning; UploadFile", _uvicorn(1)),
    "fastapi-workers": Kind(
        f"FastAPI x{CORES}", "a uvicorn worker a core, one thread each; UploadFile", _uvicorn(CORES), workers=CORES
    ),
    "mosec": Kind(
        "mosec",
        "a worker a core, one thread each; raw body; small network: batches of 8, 1 ms wait; large: no batches",
        _mosec,
        takes_form=False,
    ),
    "litserve": Kind(
        "LitServe",
        "a worker and an HTTP process a core, ZeroMQ queue; small network: batches of 8, 1 ms wait; large: no batches",
        _litserve,
    ),
    "bentoml": Kind(
        "BentoML",
        "a worker a core, no access log or metrics; small network: adaptive batches of 8; large: no batches",
        _bentoml,
    ),
}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(kind: Kind, workload: Workload, python: Path, log: Path, *options: str) -> Iterator[Running]:
    """Run a server until the block ends; it has answered every image right before the block begins.

    Raises ServerFailed.
    """
    launch = Launch(python, free_port(), workload, options)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "BENCHMARK_MODEL": str(workload.model),
        "BENCHMARK_CORES": str(CORES),
        "BENCHMARK_WORKERS": str(kind.workers),
        "BENCHMARK_IS_SMALL": str(int(workload.is_small)),
        "BENTOML_DO_NOT_TRACK": "True",
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            kind.command(launch), cwd=ROOT, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    server = Running(kind, workload, ("127.0.0.1", launch.port), process.pid)
    try:
        _wait_until_ready(server, process)
        _check_answers(server)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
        processes.end(server.session)
        process.wait()


def _wait_until_ready(server: Running, process: "subprocess.Popen[bytes]") -> None:
    gives_up_at = time.monotonic() + _START_S
    while time.monotonic() < gives_up_at and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if _ask(server, 0)[0] == 200:
                return
        time.sleep(0.1)
    raise ServerFailed(f"{server.kind.name} did not start")


def _check_answers(server: Running) -> None:
    questions = server.workload.questions(server.kind.takes_form)
    for number in range(len(questions) * _CHECKS_OF_EACH_IMAGE):
        status, body = _ask(server, number % len(questions))
        if status != 200 or not questions[number % len(questions)].expected.search(body):
            raise ServerFailed(f"{server.kind.name} answered image {number % len(questions)} wrong (status {status})")


def _ask(server: Running, number: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*server.address, timeout=_START_S)
    with contextlib.closing(connection):
        connection.connect()
        connection.sock.sendall(server.workload.questions(server.kind.takes_form)[number].request)
        answer = http.client.HTTPResponse(connection.sock, method="POST")
        answer.begin()
        return answer.status, answer.read()
