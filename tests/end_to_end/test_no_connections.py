"""No program of this project connects to another machine: each is run under strace, and its connections are read."""

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import image
from tests.support.servers.served import ROOT, serving_command

STRACE = shutil.which("strace")
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(STRACE is None, reason="needs strace, a package of Debian"),
]
# The addresses that a program may connect to: its own machine, and sockets without a network.
LOCAL = re.compile(r"sa_family=AF_(?:UNIX|NETLINK|UNSPEC)|127\.0\.0\.1|\"::1\"|::ffff:127\.")
# Variables that let libraries send data to another machine.
PHONING = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://192.0.2.1:4318", "HF_HUB_OFFLINE": "0", "DO_NOT_TRACK": "0"}


class Trace:
    """The system calls of a program and its children that connect or send to an address."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def command(self, *words: object) -> list[str]:
        calls = "trace=connect,sendto,sendmsg,sendmmsg"
        return [
            str(STRACE),
            "-D",
            "-f",
            "--seccomp-bpf",
            "-qq",
            "-e",
            calls,
            "-e",
            "signal=none",
            "-o",
            str(self.path),
            *map(str, words),
        ]

    def foreign(self) -> list[str]:
        """Return the calls with the address of another machine, once no program writes to the trace any more."""
        size = -1
        while size != self.path.stat().st_size:
            size = self.path.stat().st_size
            time.sleep(0.2)
        calls = self.path.read_text(errors="replace").splitlines()
        return [call for call in calls if "sa_family=AF_" in call and not LOCAL.search(call)]

    def __len__(self) -> int:
        return len(self.path.read_text(errors="replace").splitlines())


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    found = Trace(tmp_path / "trace.txt")
    tried = subprocess.run(found.command("true"), capture_output=True, text=True, check=False, timeout=60)
    if tried.returncode != 0:
        pytest.skip(f"strace may not trace here: {tried.stderr.strip()[-100:]}")
    return found


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "red.jpg").write_bytes(image((255, 0, 0)))
    return tmp_path / "photos" / "red.jpg"


def environment() -> dict[str, str]:
    return os.environ | PHONING


def test_a_connection_to_another_machine_is_found(trace: Trace) -> None:
    """192.0.2.1 is reserved for documents (RFC 5737), so nothing is reached."""
    script = (
        "import socket\ns = socket.socket(); s.setblocking(False); s.connect_ex(('192.0.2.1', 80))\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "try: s.sendto(b'x', ('192.0.2.2', 53))\nexcept OSError: pass\n"
        "socket.socket().connect_ex(('127.0.0.1', 9))\n"
    )
    subprocess.run(trace.command(sys.executable, "-c", script), check=True, timeout=60)
    assert [re.findall(r"192\.0\.2\.\d", call) for call in trace.foreign()] == [["192.0.2.1"], ["192.0.2.2"]]
    assert len(trace) >= 3


def test_the_server_connects_to_no_other_machine(trace: Trace, models: Path, photo: Path) -> None:
    start = trace.command(sys.executable, "-m", "service")
    with serving_command(start, "--models", models, environment=environment()) as served:
        for path in ("/classify", "/explain", "/embed", "/hf/tiny", "/predictions/tiny"):
            assert served.ask("POST", path, photo.read_bytes())[0] == 200
        for path in ("/", "/docs", "/openapi.json", "/models", "/v1/models", "/ping", "/v2"):
            assert served.ask("GET", path)[0] == 200
        address = b'{"inputs": "http://192.0.2.1/a.jpg"}'
        assert served.ask("POST", "/hf/tiny", address, {"content-type": "application/json"})[0] >= 400
        assert served.ask_admin("GET", "/models")[0] == 200
        assert _status_of_a_load(served.admin_port) == 200
    assert trace.foreign() == []


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_classify_connects_to_no_other_machine(trace: Trace, models: Path, photo: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    out = photo.parents[1] / f"answers.{ending}"
    command = trace.command(
        sys.executable, "-m", "service.cli.classify", "--models", models, "--out", out, photo.parent
    )
    subprocess.run(command, check=True, cwd=ROOT, env=environment(), capture_output=True, timeout=200)
    assert out.exists()
    assert trace.foreign() == []


def test_resnet_mcp_connects_to_no_other_machine(trace: Trace, models: Path, photo: Path) -> None:
    pytest.importorskip("mcp", reason="the extra mcp is not installed")
    script = "from resnet_service.mcp_command import main; main()"
    with _asking(trace.command(sys.executable, "-c", script, "--model", models / "tiny")) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        hello = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        process.stdin.write(_message("initialize", hello, id=1))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        process.stdin.write(_message("notifications/initialized", {}))
        process.stdin.write(
            _message("tools/call", {"name": "classify_image", "arguments": {"image": str(photo)}}, id=2)
        )
        process.stdin.flush()
        assert "red" in process.stdout.readline()
    assert trace.foreign() == []


def _status_of_a_load(port: int) -> int:
    """Load a model, which starts another process."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=200)) as connection:
        connection.request("POST", "/admin/models/tiny/load")
        return connection.getresponse().status


def _message(method: str, parameters: dict[str, object], **further: int) -> str:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": parameters, **further}) + "\n"


@contextlib.contextmanager
def _asking(command: list[str]) -> "Iterator[subprocess.Popen[str]]":
    """Run a program over its standard input until the block ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, cwd=ROOT, env=environment(), text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
            process.stdin.close()
            process.wait(60)
        finally:
            process.kill()
