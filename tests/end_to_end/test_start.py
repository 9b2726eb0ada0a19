"""While the models load, the server answers already: that it is alive, and that it is not ready yet."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.model_files.tiny_model import write_tiny_model
from tests.support.servers.served import ROOT, Served, free_port, wait_until

# A server whose models never finish loading, or fail when the file appears.
LOADING = """
import os, sys, time
from pathlib import Path
import service.lifespan
from service.__main__ import main
from service.model_files.repository import ModelRepositoryError

def load_models(*_, **__):
    while not Path(os.environ["FAILURE"]).exists():
        time.sleep(0.01)
    raise ModelRepositoryError("this model is broken")

service.lifespan.load_models = load_models
main()
"""


@contextlib.contextmanager
def loading(failure: Path) -> Iterator[Served]:
    port = free_port()
    write_tiny_model(failure.parent, content=b"")
    command = [sys.executable, "-c", LOADING, "--port", port, "--admin-port", "0", "--models", failure.parent]
    environment = {**os.environ, "FAILURE": str(failure)}
    with subprocess.Popen(
        [*map(str, command)], cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            served = Served(process, port, 0)
            wait_until(lambda: listens(served))
            assert served.ask("GET", "/health/live") == (200, {"status": "live"})
            yield served
        finally:
            process.kill()


def listens(served: Served) -> bool:
    assert served.process.poll() is None
    with contextlib.suppress(ConnectionRefusedError), served.raw():
        return True
    return False


def test_while_models_load_it_is_live_and_says_that_it_is_not_ready(tmp_path: Path, red: bytes) -> None:
    with loading(tmp_path / "failure") as served:
        for method, path, body in (
            ("GET", "/health/ready", None),
            ("GET", "/models", None),
            ("POST", "/classify", red),
        ):
            status, document = served.ask(method, path, body)
            assert (status, document["code"]) == (503, "not_ready")
        with contextlib.closing(served.connect()) as connection:
            connection.request("GET", "/health/ready")
            assert int(connection.getresponse().headers["retry-after"]) > 0


def test_a_load_that_fails_ends_it_with_one_line(tmp_path: Path) -> None:
    with loading(tmp_path / "failure") as served:
        (tmp_path / "failure").touch()
        _, said = served.process.communicate(timeout=20)
    spoken = [line for line in said.splitlines() if '"message":"request"' not in line]
    assert (served.process.returncode, spoken) == (1, ["serve-resnet: this model is broken"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_models_load_ends_it_quietly(tmp_path: Path, number: signal.Signals) -> None:
    with loading(tmp_path / "failure") as served:
        served.process.send_signal(number)
        _, said = served.process.communicate(timeout=10)
    assert served.process.returncode == 0, said
    assert "Traceback" not in said
    assert "listening" not in said


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_reason_not_to_serve(models: Path, red: bytes, closed: str) -> None:
    port = free_port()
    server = f'exec "$0" -m service --models "$1" --port {port} --admin-port 0 --log json {closed}'
    with subprocess.Popen(["sh", "-c", server, sys.executable, str(models)], cwd=ROOT) as process:
        try:
            served = Served(process, port, 0)  # type: ignore[arg-type]  # it says nothing
            wait_until(lambda: listens(served) and served.ask("GET", "/health/ready")[0] == 200)
            assert served.ask("POST", "/classify", red)[0] == 200
            for pid in (process.pid, *served.workers()):
                assert os.readlink(f"/proc/{pid}/fd/2") == os.devnull, "else some socket is sent the log"
            served.stop()
            assert process.wait(20) == 0
        finally:
            process.kill()
