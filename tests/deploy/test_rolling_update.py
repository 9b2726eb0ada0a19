"""A rolling update for real: three services behind haproxy under load, replaced one by one.

haproxy in TCP mode balances connections, as a Kubernetes Service does; in HTTP mode it balances requests, as an ingress
does. `python -m tests.deploy.test_rolling_update` prints the figures of docs/kubernetes.md.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.service.conftest import image
from tests.support.model_files.tiny_model import write_tiny_model
from tests.support.servers.replicas import Load, Replica, balancer, replicas

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

CHART_AGE_S = 45.0  # as in deploy/chart/values.yaml
SHARE_WITHIN_S = 60.0
_OPTIONS = ("--processes", "1", "--engine-threads", "1", "--drain-delay-s", "8", "--drain-timeout-s", "10")
RED = image((255, 0, 0))


def shares(behind: list[Replica], seconds: float) -> list[float]:
    """Return each replica's part of the responses of this time."""
    before = [replica.answered() for replica in behind]
    time.sleep(seconds)
    counts = [replica.answered() - count for replica, count in zip(behind, before, strict=True)]
    return [count / max(1, sum(counts)) for count in counts]


def seconds_until_fair(behind: list[Replica], newest: int) -> float:
    """Return when the newest replica first has half of a fair share for a second, or infinity."""
    started = time.monotonic()
    while time.monotonic() - started < SHARE_WITHIN_S:
        if shares(behind, 1.0)[newest] >= 0.5 / len(behind):
            return time.monotonic() - started
    return float("inf")


def roll(folder: Path, mode: str, age_s: float | None) -> dict[str, Any]:
    """Replace all replicas under load; return what the clients and the newest replica saw."""
    models = folder / "models"
    write_tiny_model(models)
    options = _OPTIONS if age_s is None else (*_OPTIONS, "--max-connection-age-s", str(age_s))
    with replicas(models, 3, *options) as running, balancer(folder, mode, running) as port, Load(port, RED) as load:
        shares(running, 2.0)
        for replica in running:
            replica.stop()
            replica.start()
        at_once = shares(running, 5.0)
        fair_s = seconds_until_fair(running, newest=2) if age_s is not None else None
        later = shares(running, 5.0)
    return {
        "mode": mode,
        "age_s": age_s,
        "responses": load.outcomes["200"],
        "failures": load.failures,
        "connections": load.connections,
        "shares_at_once": [round(share, 2) for share in at_once],
        "fair_after_s": fair_s if fair_s is None else round(fair_s, 1),
        "shares_later": [round(share, 2) for share in later],
    }


@pytest.mark.parametrize("mode", ["tcp", "http"])
def test_a_rolling_update_loses_no_request_and_the_new_replica_gets_its_share(mode: str, tmp_path: Path) -> None:
    seen = roll(tmp_path, mode, CHART_AGE_S)
    assert seen["failures"] == {}
    assert seen["responses"] > 100
    assert seen["fair_after_s"] <= SHARE_WITHIN_S


def test_without_an_age_the_newest_replica_stays_idle_behind_a_balancer_of_connections(tmp_path: Path) -> None:
    seen = roll(tmp_path, "tcp", None)
    assert seen["failures"] == {}
    assert seen["shares_later"][2] == 0.0


if __name__ == "__main__":
    for run_mode, run_age_s in (("tcp", CHART_AGE_S), ("http", CHART_AGE_S), ("tcp", None)):
        with tempfile.TemporaryDirectory() as temporary:
            sys.stdout.write(json.dumps(roll(Path(temporary), run_mode, run_age_s)) + "\n")
            sys.stdout.flush()
