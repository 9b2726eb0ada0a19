"""How `serve-resnet` ends: in time, and without losing an answer."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.servers.served import ROOT, Load, serving, wait_until


def test_told_to_stop_it_is_not_ready_at_once_but_still_answers(models: Path, red: bytes) -> None:
    with serving(models, "--drain-delay-s", 2) as served:
        assert served.ask("GET", "/health/ready")[0] == 200
        served.stop()
        wait_until(lambda: served.ask("GET", "/health/ready")[0] == 503)
        assert served.ask("POST", "/classify", red)[0] == 200
        assert served.process.wait(10) == 0


def stop_under_load(models: Path, red: bytes) -> None:
    with serving(models) as served, Load(served, red, clients=12) as load:
        wait_until(lambda: len(load.answered) > 200)
        served.stop()
        assert served.process.wait(10) == 0
    assert load.lost == []
    assert set(load.answered) == {"red"}


def test_told_to_stop_under_load_it_loses_nothing(models: Path, red: bytes) -> None:
    stop_under_load(models, red)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_fifty_stops_under_load_lose_nothing(models: Path, red: bytes) -> None:
    for _ in range(50):
        stop_under_load(models, red)


def test_ctrl_c_in_a_terminal_is_handled_once(models: Path, red: bytes) -> None:
    with serving(models) as served, Load(served, red, clients=6) as load:
        wait_until(lambda: len(load.answered) > 50)
        for pid in (served.process.pid, *served.workers()):
            os.kill(pid, signal.SIGINT)  # the terminal sends it to all
        assert served.process.wait(15) == 0
    assert load.lost == []
    assert set(load.answered) == {"red"}


def test_it_stops_in_time_whatever_clients_do(models: Path) -> None:
    with serving(models) as served, contextlib.ExitStack() as stack:
        silent, half_head, slow_body, idle = (stack.enter_context(served.raw()) for _ in range(4))
        half_head.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\n")
        slow_body.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
        idle.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert idle.recv(12) == b"HTTP/1.1 200"
        started = time.monotonic()
        served.stop()
        answer = http.client.HTTPResponse(slow_body)
        answer.begin()  # it is told in the end, and not just cut off
        assert (answer.status, json.loads(answer.read())["code"]) in ((503, "draining"), (408, "request_timeout"))
        assert served.process.wait(20) == 0
        assert time.monotonic() - started < 10  # the promise itself
        assert silent.recv(1) == b""


def test_told_twice_it_does_not_wait_for_slow_clients(models: Path) -> None:
    with serving(models, "--drain-delay-s", 60, "--drain-timeout-s", 60) as served, served.raw() as slow:
        slow.sendall(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
        served.stop()
        wait_until(lambda: served.ask("GET", "/health/ready")[0] == 503)
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait(15) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_it_quietly(models: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "service", "--models", str(models), "--port", "0", "--admin-port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: catches(process.pid, number))
        process.send_signal(number)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0, said
    assert "Traceback" not in said


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of its own for the signal."""
    caught = re.search(r"SigCgt:\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1) and has_sockets(pid)


def has_sockets(pid: int) -> bool:
    """Whether the process has opened its sockets, so that its handlers are set."""
    with contextlib.suppress(FileNotFoundError):  # a file that was closed meanwhile
        return any(os.readlink(file).startswith("socket:") for file in Path(f"/proc/{pid}/fd").iterdir())
    return False
