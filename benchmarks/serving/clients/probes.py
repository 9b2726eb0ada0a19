"""Liveness probes beside a load, as Kubernetes sends them: `probes.py HOST PORT SECONDS`.

Each probe is a new connection. Prints, as JSON, the seconds that each took; one that failed or took over 10 s counts
as 10 s. A process of its own, so that its clock is not the load generator's.
"""

import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[3]
_INTERVAL_S = 0.25
_TIMEOUT_S = 10.0


def _probe(host: str, port: int) -> float:
    started = time.perf_counter()
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/health/live")
        is_alive = connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        is_alive = False
    finally:
        connection.close()
    return time.perf_counter() - started if is_alive else _TIMEOUT_S


@contextlib.contextmanager
def running(address: tuple[str, int], seconds: float) -> Iterator[list[float]]:
    """Probe a server for so long beside the body of the `with`; the list has the seconds of each probe afterwards."""
    taken: list[float] = []
    command = [sys.executable, "-m", "benchmarks.serving.clients.probes", address[0], str(address[1]), str(seconds)]
    with subprocess.Popen(command, cwd=_ROOT, stdout=subprocess.PIPE, text=True) as probing:
        yield taken
        taken += json.loads(probing.communicate()[0])


def main() -> None:
    """Probe until the time is over."""
    host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    ends_at = time.perf_counter() + seconds
    taken = []
    while time.perf_counter() < ends_at:
        taken.append(_probe(host, port))
        time.sleep(_INTERVAL_S)
    sys.stdout.write(json.dumps(taken))


if __name__ == "__main__":
    main()
