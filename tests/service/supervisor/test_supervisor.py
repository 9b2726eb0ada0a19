"""The server as several processes: what dies or hangs costs its own requests only, and is replaced."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.servers.served import ROOT, Load, Served, ports_it_says, serving, wait_until

# A server with images and questions that make it hang.
HANGING = """
import time
from service.api.endpoints.classify import ClassifyEndpoint
from service.inference.classifier import Classifier

answer_batch, call = Classifier.answer_batch, ClassifyEndpoint.__call__

def hang_in_the_engine(self, images, **options):
    if any(image.content.endswith(b"hang") for image in images):
        time.sleep(1000)
    return answer_batch(self, images, **options)

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
import service.lifespan, service.supervisor.supervisor
load = service.lifespan.load_models
def slow(*arguments, **options):
    ctypes.PyDLL(None).usleep(1_500_000)  # holds Python's lock, so the event loop stands still
    return load(*arguments, **options)
service.lifespan.load_models = slow
service.supervisor.supervisor._TICK_S = 0.1
"""
    with serving(models, "--processes", 1, patch=patch) as served:
        assert served.ask("POST", "/classify", red)[0] == 200
        assert served.sample("resnet_process_deaths_total") == 0


def test_a_worker_that_fails_again_and_again_ends_the_server_with_its_status(models: Path) -> None:
    patch = """
import os, threading
import service.worker.worker, service.supervisor.worker_controller
handle = service.worker.worker._Worker._handle
def poisoned(self, message):
    handle(self, message)
    if message.kind == "become_ready":
        threading.Timer(0.1, os._exit, [70]).start()
service.worker.worker._Worker._handle = poisoned
service.supervisor.worker_controller._RESTART_DELAYS_S = (0.0, 0.1, 0.1)
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
import service.worker.worker, service.supervisor.worker_controller
service.supervisor.worker_controller._RESTART_DELAYS_S = (0.0, 0.1, 0.1)
run_worker = service.worker.worker.run_worker
def broken(settings, spec, *rest):
    if spec.layout is not None and spec.index == 1 and spec.serving_set.files[0].sha256:
        return 1  # it replaces another
    return run_worker(settings, spec, *rest)
service.worker.worker.run_worker = broken
"""
    with serving(models, "--processes", 2, patch=patch) as served:
        victim = served.workers()[1]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: sum("it is replaced" in line for line in served.log) > 5)
        assert served.ask("POST", "/classify", red)[0] == 200
        assert served.process.poll() is None


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_workers_end_at_once_with_their_supervisor_and_leave_the_port(models: Path, red: bytes, state: str) -> None:
    command = [sys.executable, "-m", "service", "--models", str(models), "--port", "0", "--admin-port", "0"]
    with subprocess.Popen([*command, "--processes", "2"], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        served = Served(process, *ports_it_says(Served(process, 0, 0)))
        workers = served.workers()
        if state == "stopped":
            os.kill(workers[0], signal.SIGSTOP)
        process.kill()
        process.wait()
        wait_until(lambda: not any(is_running(pid) for pid in workers))
    with serving(models, "--port", served.port) as again:
        assert again.ask("POST", "/classify", red)[0] == 200


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended, in this container where nobody may reap it."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


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


def test_while_a_worker_serves_another_that_fails_again_and_again_does_not_end_the_server(
    models: Path, red: bytes
) -> None:
    patch = """
import os, threading
import service.worker.worker, service.supervisor.worker_controller
service.supervisor.worker_controller._RESTART_DELAYS_S = (0.0, 0.1, 0.1)
service.supervisor.worker_controller._SERVING_S = 0.0
handle = service.worker.worker._Worker._handle
def poisoned(self, message):
    handle(self, message)
    if message.kind == "become_ready" and self._spec.index == 1:
        threading.Timer(0.1, os._exit, [70]).start()
service.worker.worker._Worker._handle = poisoned
"""
    with serving(models, "--processes", 2, patch=patch) as served:
        wait_until(lambda: sum("status 70; it is replaced" in line for line in served.log) > 4)
        wait_until(lambda: asked_until_served(served, red))
        assert served.process.poll() is None


def asked_until_served(served: Served, red: bytes) -> bool:
    with contextlib.suppress(OSError):
        return bool(served.ask("POST", "/classify", red)[0] == 200)
    return False


@pytest.mark.parametrize(
    "part",
    [
        "worker._Worker._send_health = lambda *_: 1 // 0",
        "worker._StatisticsClient.note = lambda *_: 1 // 0",
        "server.Server.on_tick = lambda *_: 1 // 0",
        "batcher.JobQueue.take_batch = lambda *_: 1 // 0",
    ],
)
def test_a_worker_that_loses_a_part_of_itself_says_so_and_is_replaced(
    models: Path, red: bytes, part: str, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    patch = f"""
import threading, time
from pathlib import Path
from service.batching import batcher
from service.http_server import server
from service.worker import worker
batcher.LoadShedder.is_fast = lambda _: False  # else the event loop computes a single image itself, without the thread
def break_soon():
    while not Path({str(broken)!r}).exists():
        time.sleep(0.01)
    Path({str(broken)!r}).unlink(missing_ok=True)
    {part}
handle = worker._Worker._handle
def handled(self, message):
    handle(self, message)
    if message.kind == "become_ready":
        threading.Thread(target=break_soon, daemon=True).start()
worker._Worker._handle = handled
"""
    with serving(models, "--processes", 1, patch=patch, fails=True) as served:
        (victim,) = served.workers()
        broken.touch()
        wait_until(lambda: asked_of_all(served, red, victim))
        wait_until(lambda: asked_until_served(served, red))
    assert any("ZeroDivisionError" in line for line in served.log)
    ends = [line for line in served.log if f"process {victim} ended: " in line]  # by itself, or as one that hangs
    assert ["it is replaced" in line for line in ends] == [True]


def asked_of_all(served: Served, red: bytes, victim: int) -> bool:
    """Give every part something to do; whether the worker has ended."""
    with contextlib.suppress(OSError):
        served.ask("GET", "/v2/models/tiny/stats")
        served.ask("POST", "/classify", red)
    return victim not in served.workers()


def test_a_server_without_a_free_descriptor_keeps_its_workers(models: Path, red: bytes) -> None:
    with serving(models, "--processes", 2, patch="import resource; resource.setrlimit(7, (90, 90))") as served:
        workers, clients = served.workers(), []
        for _ in range(400):
            with contextlib.suppress(OSError):
                client = socket.create_connection(("127.0.0.1", served.port), timeout=5)
                client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
                clients.append(client)
        deadline = time.monotonic() + 10  # a worker that does not answer is killed after 7 ticks of a second
        while time.monotonic() < deadline:
            assert served.workers() == workers
            time.sleep(0.5)
        for client in clients:
            client.close()
        wait_until(lambda: asked_until_served(served, red))
        assert served.sample("resnet_process_deaths_total") == 0


def test_a_fork_that_the_system_refuses_is_retried(models: Path, red: bytes) -> None:
    patch = """
import os
import service.processes.forking
fork, asked = os.fork, []
def refuse_the_second_and_third():
    asked.append(None)
    if len(asked) in (2, 3):
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return fork()
service.processes.forking.os.fork = refuse_the_second_and_third
"""
    with serving(models, "--processes", 1, patch=patch) as served:
        os.kill(served.workers()[0], signal.SIGKILL)
        wait_until(lambda: sum("no process can be started" in line for line in served.log) == 2)
        wait_until(lambda: asked_until_served(served, red))


def test_a_signal_9_at_the_start_hints_at_the_memory_limit(models: Path) -> None:
    patch = """
import os, signal
import service.lifespan, service.supervisor.worker_controller, service.system.out_of_memory
service.lifespan.load_models = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
service.system.out_of_memory._kills, service.system.out_of_memory._limit = lambda _groups: 1, lambda _groups: 2**28
from service.__main__ import main
main()
"""
    command = [sys.executable, "-c", patch, "--models", str(models), "--port", "0", "--admin-port", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("serve-resnet: ")]
    assert done.returncode == 1
    for words in ("signal 9", "lack of memory", "--memory", "MEMORY_LIMIT", "--processes"):
        assert words in line


def test_a_stop_while_a_process_is_forked_ends_it_with_all_others(models: Path) -> None:
    patch = """
import os, signal, time
import service.processes.forking
fork = os.fork
def stopped_meanwhile():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.3)
    return fork()
service.processes.forking.os.fork = stopped_meanwhile
from service.__main__ import main
main()
"""
    command = [sys.executable, "-c", patch, "--models", str(models), "--port", "0", "--admin-port", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("Bad file descriptor"), done.stderr.count("Traceback")) == (0, 0, 0)
    assert "stopped" in done.stderr.splitlines()[-1]
