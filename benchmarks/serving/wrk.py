"""Closed-loop load at one concurrency: by wrk where it is installed, else by our own generator."""

import json
import resource
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.serving.clients.figures import admitted, quantile
from benchmarks.serving.clients.load import closed_loop
from benchmarks.serving.servers.servers import Running

_SCRIPT = Path(__file__).with_suffix(".lua")
_MOST_THREADS = 8  # each keeps to one image, so with one image a thread every answer's right labels are known
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of clients that each send again as soon as they are answered."""

    rate: float  # right answers a second
    p50_s: float
    p99_s: float
    wrong: int  # status 200 with other labels than expected
    refused: int  # status 503
    failed: int  # everything else: other statuses, broken connections, timeouts
    generator_cpu: float  # cores


def tool() -> str:
    """Return the name of what makes the load."""
    return "wrk" if shutil.which("wrk") else "the benchmark's own generator (wrk is not installed)"


def measure(server: Running, connections: int, seconds: int) -> Measured:
    """Let so many clients ask for so long."""
    return (_with_wrk if shutil.which("wrk") else _with_our_own)(server, connections, seconds)


def _with_wrk(server: Running, connections: int, seconds: int) -> Measured:
    threads = min(connections, _MOST_THREADS)
    with TemporaryDirectory() as folder:
        server.workload.write_for_wrk(Path(folder), server.kind.takes_form)
        size = [f"-t{threads}", f"-c{connections}", f"-d{seconds}s", "--timeout", f"{_TIMEOUT_S}s"]
        target = ["http://{}:{}".format(*server.address), "--", folder, str(int(threads == connections))]
        cpu_before, started = _children_cpu_s(), time.perf_counter()
        run = subprocess.run(["wrk", *size, "-s", str(_SCRIPT), *target], capture_output=True, text=True, check=True)
        cpu = (_children_cpu_s() - cpu_before) / (time.perf_counter() - started)
    result = json.loads(next(line for line in run.stdout.splitlines() if line.startswith("RESULT "))[7:])
    return Measured(
        result["right"] / result["seconds"],
        result["p50_s"],
        result["p99_s"],
        result["wrong"],
        result["refused"],
        result["failed"],
        cpu,
    )


def _with_our_own(server: Running, connections: int, seconds: int) -> Measured:
    questions = server.workload.questions(server.kind.takes_form)
    load = closed_loop(server.address, questions, clients=connections, seconds=seconds)
    ended = [outcome for outcome in load.outcomes if outcome.ended_s <= seconds]
    latencies = admitted(ended)
    return Measured(
        sum(outcome.is_right for outcome in ended) / seconds,
        quantile(latencies, 0.5),
        quantile(latencies, 0.99),
        sum(outcome.status == 200 and not outcome.is_right for outcome in load.outcomes),
        sum(outcome.status == 503 for outcome in load.outcomes),
        sum(outcome.status not in (200, 503) for outcome in load.outcomes),
        load.generator_cpu,
    )


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
