"""The faults of the chaos run: each breaks a running server, or what it depends on, and says what it did."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path

from tests.reliability.checked_load import CheckedLoad
from tests.reliability.processes import PATIENT
from tests.support.image_files.giant_images import giants
from tests.support.model_files.tiny_model import tiny_model, write_tiny_model
from tests.support.servers.served import ROOT, Served

PROCESSES = 2
_SUPERVISOR_STOPS_S = 10.0
_EMFILE_HOLDS_S = 10.0  # longer than a worker may leave pings without a reply
_JUMPS_S = {"+1 h": 3600.0, "-1 h": -3600.0, "+400 days": 400 * 86_400.0, "-20 years": -20 * 31_557_600.0}
_MORE_MEMORY_BYTES = 48 << 20
_HANGUPS = 200


class Skipped(Exception):
    """This machine cannot show the fault."""


@dataclass
class Scene:
    """A server under load, and what it depends on."""

    served: Served
    load: CheckedLoad
    folder: Path  # for files of the fault
    models: Path
    notes: list[str] = field(default_factory=list)  # what was seen besides the load's answers


@dataclass(frozen=True, slots=True)
class Fault:
    """One row of the table."""

    name: str
    inject: Callable[[Scene], str]  # returns what was done; the fault is over when it returns
    most_failed: int | None = 0  # None: no promise
    deaths: int | None = 0  # of workers, by the fault itself; None: on a busy machine more are taken for hanging
    model: str = "tiny"  # or the name of a shipped one
    patch: str = PATIENT  # Python that runs before the server does
    prepare: Callable[[Path], contextlib.AbstractContextManager[dict[str, str]]] | None = None  # environment


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _wait_for_replacement(scene: Scene, *gone: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        workers = scene.served.workers()
        if len(workers) == PROCESSES and not set(gone) & set(workers):
            return
        time.sleep(0.02)


def kill_a_worker(scene: Scene) -> str:
    """Kill one worker."""
    _kill(scene.served.workers()[0])
    return "kill -9 of one of two workers"


def kill_all_workers(scene: Scene) -> str:
    """Kill every worker at once."""
    for pid in scene.served.workers():
        _kill(pid)
    return "kill -9 of both workers at once"


def stop_a_worker(scene: Scene) -> str:
    """Stop a worker, which has to be replaced."""
    pid = scene.served.workers()[0]
    os.kill(pid, signal.SIGSTOP)
    _wait_for_replacement(scene, pid)
    return "SIGSTOP of a worker, until it was replaced"


def stop_the_supervisor(scene: Scene) -> str:
    """Stop the supervisor for a while; the workers go on without it."""
    os.kill(scene.served.process.pid, signal.SIGSTOP)
    time.sleep(_SUPERVISOR_STOPS_S)
    os.kill(scene.served.process.pid, signal.SIGCONT)
    return f"SIGSTOP of the supervisor for {_SUPERVISOR_STOPS_S:g} s"


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[dict[str, str]]:
    """Mount a file system of 8 MB for the cache. Raises Skipped without the right to do so."""
    cache = folder / "cache"
    cache.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        raise Skipped("mounting a small file system needs root")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", cache], check=False).returncode:
        raise Skipped("this container may not mount file systems")
    try:
        yield {"XDG_CACHE_HOME": str(cache)}
    finally:
        subprocess.run(["umount", "--lazy", cache], check=False)


def fill_the_disk(scene: Scene) -> str:
    """Fill the disk of the cache; then a worker is replaced and a version is added."""
    with (scene.folder / "cache" / "rest").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    (victim, _) = scene.served.workers()
    _kill(victim)
    _wait_for_replacement(scene, victim)
    shutil.copytree(scene.models / "cifar10-resnet20" / "1", scene.models / "cifar10-resnet20" / "2")
    with (scene.models / "cifar10-resnet20" / "2" / "model.onnx").open("rb") as file:
        os.fsync(file.fileno())
    scene.served.process.send_signal(signal.SIGHUP)
    scene.load.wait_for(100)
    return "the disk of the cache filled up; kill -9 of a worker; a second version by SIGHUP"


def use_up_descriptors(scene: Scene) -> str:
    """Open more connections than the processes have descriptors, and hold them."""
    clients, workers = [], scene.served.workers()
    for _ in range(400):
        with contextlib.suppress(OSError):
            client = socket.create_connection(("127.0.0.1", scene.served.port), timeout=5)
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            clients.append(client)
    time.sleep(_EMFILE_HOLDS_S)
    if scene.served.workers() != workers:
        scene.notes.append("a worker was replaced")
    for client in clients:
        client.close()
    return f"{len(clients)} connections held for {_EMFILE_HOLDS_S:g} s, with 90 descriptors a process"


def limit_the_memory(scene: Scene) -> str:
    """Leave each worker 48 MiB of address space while images of 26 million pixels arrive; then lift the limit."""
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    for pid in scene.served.workers():
        size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(pid, resource.RLIMIT_AS, (size + _MORE_MEMORY_BYTES, resource.RLIM_INFINITY))
    answers = _send_giants(scene.served)
    for pid in scene.served.workers():
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, unlimited)
    scene.notes.append(
        "the large images got " + ", ".join(f"{count} x {kind}" for kind, count in sorted(answers.items()))
    )
    return "RLIMIT_AS at 48 MiB above the present size; 12 images of 26 megapixels"


def _send_giants(served: Served) -> Counter[str]:
    makers, answers = giants(), Counter[str]()
    files = [makers[name]() for name in ("jpeg_progressive", "png_8_bits_colour_6_interlaced", "webp_lossless_alpha")]

    def send(content: bytes) -> None:
        try:
            status, document = served.ask("POST", "/classify", content)
            answers[f"{status} {document.get('code', '')}".strip()] += 1
        except Exception as error:
            answers[type(error).__name__] += 1

    threads = [threading.Thread(target=send, args=(content,)) for content in files * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


_CLOCK = """
import os, time
_real, _file = time.time, os.environ["RELIABILITY_CLOCK"]
def _jumped():
    with open(_file) as file:
        return _real() + float(file.read() or 0)
time.time = _jumped
"""


def faketime_library() -> str | None:
    """Return the path of Debian's libfaketime, if it is installed."""
    return next(iter(glob("/usr/lib/*/faketime/libfaketime.so.1")), None)


@contextlib.contextmanager
def moving_clock(folder: Path) -> Iterator[dict[str, str]]:
    """Let a file decide what time it is: by libfaketime, else for Python's `time.time` only."""
    file, library = folder / "clock", faketime_library()
    file.write_text("+0" if library else "0")
    faked = {"FAKETIME_TIMESTAMP_FILE": str(file), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    yield {"LD_PRELOAD": library, **faked} if library else {"RELIABILITY_CLOCK": str(file)}


def move_the_clock(scene: Scene) -> str:
    """Let the clock jump forwards and backwards, with a reload after each jump."""
    for seconds in _JUMPS_S.values():
        new = scene.folder / "clock.new"
        new.write_text(f"{seconds:+.0f}")
        new.rename(scene.folder / "clock")
        scene.served.process.send_signal(signal.SIGHUP)
        scene.load.wait_for(100)
    how = "libfaketime" if faketime_library() else "a patched time.time"
    return f"the clock jumped by {', '.join(_JUMPS_S)} ({how}), with SIGHUP after each"


def hide_the_models(scene: Scene) -> str:
    """Take the folder of models away; a reload fails, and a worker is replaced without it."""
    away = scene.models.with_name("away")
    scene.models.rename(away)
    scene.served.process.send_signal(signal.SIGHUP)
    scene.load.wait_for(50)
    victim = scene.served.workers()[0]
    _kill(victim)
    _wait_for_replacement(scene, victim)
    scene.load.wait_for(50)
    away.rename(scene.models)
    scene.served.process.send_signal(signal.SIGHUP)
    return "the folder of models was renamed; SIGHUP; kill -9 of a worker; the folder came back"


def send_hangups(scene: Scene) -> str:
    """Send many SIGHUPs while versions are added, one of them broken."""
    for number in range(_HANGUPS):
        if number % 50 == 25:
            version = str(2 + number // 50)
            content = tiny_model() if version != "4" else tiny_model()[:-100]
            write_tiny_model(scene.folder / "new", version=version, content=content)
            (scene.folder / "new" / "tiny" / version).rename(scene.models / "tiny" / version)
        scene.served.process.send_signal(signal.SIGHUP)
        time.sleep(0.01)
    scene.load.wait_for(200)
    return f"{_HANGUPS} SIGHUPs in {_HANGUPS // 100} s, with four new versions, one of them cut off"


class _HeldLog(list[str]):
    """A log whose reader stops at its next line until it is released."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines)
        self.go_on = threading.Event()

    def append(self, line: str) -> None:
        self.go_on.wait()
        super().append(line)


def block_the_log(scene: Scene) -> str:
    """Stop reading the log until lines are dropped."""
    held = _HeldLog(scene.served.log)
    scene.served.log = held
    deadline = time.monotonic() + 60
    while not scene.served.sample("resnet_log_lines_dropped_total") and time.monotonic() < deadline:
        scene.load.wait_for(100)
    dropped = scene.served.sample("resnet_log_lines_dropped_total")
    held.go_on.set()
    scene.notes.append(f"{dropped:.0f} lines were dropped and counted")
    return "the reader of the log stood still, with a buffer of 100 lines"


_SMALL_LOG = "\nfrom service.telemetry.log_writer import LogWriter\nLogWriter.__init__.__defaults__ = (2, 100)"
_FEW_FILES = "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))"
_MODELS = ROOT / "models"
FAULTS = (
    Fault("worker killed", kill_a_worker, most_failed=4, deaths=1),
    Fault("all workers killed", kill_all_workers, most_failed=4, deaths=2),
    Fault("worker stopped", stop_a_worker, most_failed=4, deaths=None, patch=""),
    Fault("supervisor stopped", stop_the_supervisor),
    Fault("disk full", fill_the_disk, most_failed=4, deaths=1, model="cifar10-resnet20", prepare=small_disk),
    Fault("no descriptors", use_up_descriptors, most_failed=None, patch=_FEW_FILES),
    Fault("memory limit", limit_the_memory),
    Fault("clock jumps", move_the_clock, patch=PATIENT + ("" if faketime_library() else _CLOCK), prepare=moving_clock),
    Fault("models vanish", hide_the_models, most_failed=4, deaths=1),
    Fault("SIGHUP storm", send_hangups),
    Fault("log blocked", block_the_log, patch=PATIENT + _SMALL_LOG),
)
