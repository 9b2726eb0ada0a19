"""The server as several processes: what dies or hangs costs its own requests only, and is replaced."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.served import ROOT, Load, Served, ports_it_says, serving, wait_until

# A server with pictures and questions that make it hang.
HANGING = """
import time
from service.api.classify import ClassifyEndpoint
from service.classifier import Classifier

answer_batch, call = Classifier.answer_batch, ClassifyEndpoint.__call__

def hang_in_the_engine(self, pictures, **options):
    if any(picture.content.endswith(b"hang") for picture in pictures):
        time.sleep(1000)
    return answer_batch(self, pictures, **options)

async def hang_in_the_loop(self, scope, receive, send):
    if scope["query_string"] == b"hang":
        time.sleep(1000)
    await call(self, scope, receive, send)

Classifier.answer_batch, ClassifyEndpoint.__call__ = hang_in_the_engine, hang_in_the_loop
"""


def kill_one_of_two_workers(models: Path, red: bytes, *, times: int) -> None:
    clients = 8
    with serving(models, "--processes", 2) as served:
        with Load(served, red, clients=clients) as load:
            for _ in range(times):
                before, victim = len(load.answered), served.workers()[0]
                wait_until(lambda before=before: len(load.answered) > before + 100)  # type: ignore[misc]
                os.kill(victim, signal.SIGKILL)
                wait_until(lambda victim=victim: has_replaced(served, victim, processes=2))  # type: ignore[misc]
            served.stop()
        assert set(load.answered) == {"red"}
        assert len(load.lost) <= times * clients  # at most what the client had in flight
        assert served.process.wait(15) == 0


def has_replaced(served: Served, victim: int, *, processes: int) -> bool:
    return victim not in served.workers() and served.sample("resnet_processes") == processes


def test_a_killed_worker_costs_its_own_requests_and_is_replaced(models: Path, red: bytes) -> None:
    kill_one_of_two_workers(models, red, times=2)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_twenty_killed_workers_cost_their_own_requests(models: Path, red: bytes) -> None:
    kill_one_of_two_workers(models, red, times=20)


def test_the_only_worker_may_die_too_and_clients_just_wait(models: Path, red: bytes) -> None:
    with serving(models, "--processes", 1) as served:
        before = served.ask("POST", "/classify", red)[0]
        (victim,) = served.workers()
        os.kill(victim, signal.SIGKILL)
        os.waitid(os.P_PID, served.process.pid, os.WNOHANG | os.WEXITED)  # the supervisor lives
        assert (before, served.ask("POST", "/classify", red)[0]) == (200, 200)
        assert served.sample("resnet_requests_total") >= 1
        assert served.sample("resnet_process_deaths_total") == 1


def test_a_stopped_worker_and_a_hanging_engine_are_noticed_and_replaced(models: Path, red: bytes) -> None:
    with serving(models, "--processes", 2, patch=HANGING) as served:
        victims = served.workers()
        os.kill(victims[0], signal.SIGSTOP)
        with contextlib.closing(served.connect()) as connection:
            connection.request("POST", "/classify", red + b"hang")  # the other one takes it
            wait_until(lambda: not set(victims) & set(served.workers()))
        wait_until(lambda: served.sample("resnet_processes") == 2)
        assert served.ask("POST", "/classify", red)[0] == 200
        assert served.sample("resnet_process_deaths_total") == 2


@pytest.mark.long
def test_a_hanging_event_loop_is_noticed_and_replaced(models: Path, red: bytes) -> None:
    with serving(models, "--processes", 1, patch=HANGING) as served:
        (victim,) = served.workers()
        with contextlib.closing(served.connect()) as connection:
            connection.request("POST", "/classify?hang", red)
            wait_until(lambda: victim not in served.workers())
        wait_until(lambda: served.sample("resnet_processes") == 1)
        assert served.ask("POST", "/classify", red)[0] == 200


def test_a_load_that_blocks_everything_for_long_is_not_taken_for_hanging(models: Path, red: bytes) -> None:
    patch = """
import ctypes
import service.app, service.supervisor
load = service.app.load_models
def slow(*arguments, **options):
    ctypes.PyDLL(None).usleep(1_500_000)  # holds Python's lock, so the event loop stands still
    return load(*arguments, **options)
service.app.load_models = slow
service.supervisor._TICK_S = 0.1
"""
    with serving(models, "--processes", 1, patch=patch) as served:
        assert served.ask("POST", "/classify", red)[0] == 200
        assert served.sample("resnet_process_deaths_total") == 0


def test_a_worker_that_fails_again_and_again_ends_the_server_with_its_status(models: Path) -> None:
    patch = """
import os, threading
import service.supervisor, service.worker
obey = service.worker._Worker._obey
def poisoned(self, order):
    obey(self, order)
    if order == "serve":
        threading.Timer(0.1, os._exit, [70]).start()
service.worker._Worker._obey = poisoned
service.supervisor._DELAYS_S = (0.0, 0.1, 0.1)
from service.__main__ import main
main()
"""
    command = [sys.executable, "-c", patch, "--models", str(models), "--port", "0", "--admin-port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 70
    assert said.count("it is replaced") == 2
    assert "3 failures in a row" in said


def test_a_worker_that_cannot_start_takes_nothing_from_those_that_serve(models: Path, red: bytes) -> None:
    patch = """
import service.supervisor, service.worker
service.supervisor._DELAYS_S = (0.0, 0.1, 0.1)
work = service.worker.work
def broken(settings, task, *rest):
    if task.layout is not None and task.place == 1 and task.lineup.files[0].sha256:
        return 1  # it replaces another
    return work(settings, task, *rest)
service.worker.work = broken
"""
    with serving(models, "--processes", 2, patch=patch) as served:
        victim = served.workers()[1]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: sum("it is replaced" in line for line in served.log) > 5)
        assert served.ask("POST", "/classify", red)[0] == 200
        assert served.process.poll() is None


def test_workers_whose_supervisor_is_gone_finish_and_end(models: Path, red: bytes) -> None:
    command = [sys.executable, "-m", "service", "--models", str(models), "--port", "0", "--admin-port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        served = Served(process, *ports_it_says(Served(process, 0, 0)))
        workers = served.workers()
        process.kill()
        process.wait()
        assert served.ask("POST", "/classify", red)[0] == 200  # for the drain's delay
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))


def test_orphans_are_reaped_as_the_first_process_of_a_container_must(models: Path) -> None:
    patch = """
import ctypes, os
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: orphans come to us, as to process 1
if os.fork() == 0:
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "0.1"])
    os._exit(0)
os.wait()
"""
    with serving(models, "--processes", 1, patch=patch) as served:
        wait_until(lambda: len(served.workers()) == 1)


def test_the_number_of_processes_follows_from_the_model_and_can_be_set(models: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    with serving(models) as served:
        assert len(served.workers()) <= cores  # a quota may allow less
        assert served.sample("resnet_processes") == len(served.workers())
    with serving(models, "--processes", 3, "--engine-threads", 2) as served:
        assert len(served.workers()) == 3
        assert any("3 processes, 2 engine threads in each" in line for line in served.log)
