"""Where `make install` takes torch from: every branch, with indexes on this machine and a driver that is made up."""

import contextlib
import http.server
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "constraints" / "torch_wheels.py"
PAGE = b'<a href="torch-2.13.0%2Bcpu-cp311-cp311-manylinux_2_28_x86_64.whl">torch-2.13.0+cpu</a>'
LOGIN = b"<title>Please log in to this network</title>"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no build of torch brings CUDA")


@contextlib.contextmanager
def index(page: bytes, status: int = 200) -> Iterator[str]:
    """Serve a page at /whl/cpu/torch/ until the block ends; the value is the index's address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/whl/cpu/torch/" else 404)
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
        server.shutdown()
        thread.join()


@pytest.fixture
def no_gpu(tmp_path: Path) -> str:
    """A PATH without NVIDIA's tool."""
    return str(tmp_path)


@pytest.fixture
def gpu(tmp_path: Path) -> str:
    """A PATH with a tool that shows a GPU."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\n[ "$1" = -L ] && echo "GPU 0: NVIDIA H200 (UUID: GPU-0)"\n')
    tool.chmod(0o755)
    return f"{tmp_path}:{os.defpath}"


def choice(path: str, *address: str) -> tuple[str, str]:
    """What the script prints for pip, and what it says."""
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | {"PATH": path}
    done = subprocess.run(
        [sys.executable, SCRIPT, *address], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    (line,) = done.stderr.splitlines()
    return done.stdout, line


def test_without_a_gpu_the_wheels_for_cpus_are_taken_where_they_can_be_reached(no_gpu: str) -> None:
    with index(PAGE) as address:
        assert choice(no_gpu, address) == (
            f"--extra-index-url {address}",
            f"torch: the build for CPUs from {address}",
        )


def test_with_a_gpu_pip_takes_what_it_always_takes(gpu: str) -> None:
    with index(PAGE) as address:
        assert choice(gpu, address) == ("", "torch: the usual build, as this machine has an NVIDIA GPU")


def test_a_driver_that_shows_no_gpu_is_none(gpu: str, tmp_path: Path) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    with index(PAGE) as address:
        assert choice(gpu, address)[0] == f"--extra-index-url {address}"


@pytest.mark.parametrize(("page", "status"), [(LOGIN, 200), (PAGE, 404), (PAGE, 503), (b"", 200)])
def test_what_is_no_index_is_not_taken(no_gpu: str, page: bytes, status: int) -> None:
    with index(page, status) as address:
        arguments, line = choice(no_gpu, address)
    assert arguments == ""
    assert line.startswith(f"torch: what pip finds, as {address} cannot be reached within 4 s")


def test_an_index_that_refuses_connections_is_not_taken(no_gpu: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert choice(no_gpu, f"http://127.0.0.1:{port}/whl/cpu")[0] == ""


def test_an_index_that_is_silent_is_not_waited_for(no_gpu: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        arguments, line = choice(no_gpu, f"http://127.0.0.1:{silent.getsockname()[1]}/whl/cpu")
    assert arguments == ""
    assert "3 GB" in line


def test_an_index_that_drips_is_not_waited_for(no_gpu: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        end = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                while not end.wait(0.5):
                    connection.sendall(b" ")

        thread = threading.Thread(target=drip)
        thread.start()
        assert choice(no_gpu, f"http://127.0.0.1:{listener.getsockname()[1]}/whl/cpu")[0] == ""
        end.set()
        thread.join()


@pytest.mark.parametrize("address", [(), ("",), ("not an address",), ("http://[",), ("ftp://127.0.0.1:1/",)])
def test_no_address_and_a_wrong_one_are_left_to_pip(no_gpu: str, address: tuple[str, ...]) -> None:
    arguments, line = choice(no_gpu, *address)
    assert arguments == ""
    assert line.startswith("torch: what pip finds")


def test_a_garbled_answer_is_one_line_too(no_gpu: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def garble() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=garble)
        thread.start()
        assert choice(no_gpu, f"http://127.0.0.1:{listener.getsockname()[1]}/whl/cpu")[0] == ""
        thread.join()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what `make install` reads, with a Python that runs scripts and only says what pip was asked for."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "constraints", tmp_path / "constraints")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\n[ "$1" = -m ] || exec {sys.executable} "$@"\nshift\necho "RAN $@"; exit $PIP_ENDS\n')
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 9\n")
    for file in (python, tool):
        file.chmod(0o755)
    return tmp_path


def make(
    checkout: Path, *words: str, pip_ends: int = 0, stderr: int = subprocess.PIPE
) -> "subprocess.CompletedProcess[str]":
    path = f"{checkout}:{os.environ['PATH']}"
    return subprocess.run(
        ["make", *words],
        cwd=checkout,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        | {"PATH": path, "PIP_ENDS": str(pip_ends)},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        check=False,
        timeout=60,
    )


def ran(result: "subprocess.CompletedProcess[str]") -> str:
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("RAN ")]
    return line


def test_make_install_asks_the_script_and_hands_its_answer_to_pip(checkout: Path) -> None:
    with index(PAGE) as address:
        result = make(checkout, "install", f"TORCH_CPU_INDEX={address}")
    assert result.returncode == 0, result.stderr
    assert ran(result) == (
        "RAN pip install --disable-pip-version-check --quiet --constraint constraints/development.txt "
        f"--extra-index-url {address} --editable .[cpu,train,export,dev]"
    )
    assert f"torch: the build for CPUs from {address}" in result.stderr


def test_make_install_says_that_it_falls_back_to_what_pip_finds(checkout: Path) -> None:
    with index(LOGIN) as address:
        result = make(checkout, "install", f"TORCH_CPU_INDEX={address}")
    assert result.returncode == 0, result.stderr
    assert "--extra-index-url" not in ran(result)
    assert f"torch: what pip finds, as {address} cannot be reached" in result.stderr


def test_pip_shows_its_progress_on_a_terminal_and_is_quiet_elsewhere(checkout: Path) -> None:
    ours, terminal = os.openpty()
    try:
        assert "--quiet" not in ran(make(checkout, ".venv/.serve", stderr=terminal))
    finally:
        os.close(ours)
        os.close(terminal)
    (checkout / ".venv" / ".serve").unlink()
    assert "--quiet" in ran(make(checkout, ".venv/.serve"))


@pytest.mark.parametrize("version", ["(3, 10, 14)", "(3, 15, 0)"])
def test_a_python_that_has_no_wheels_is_refused_before_anything_is_made(checkout: Path, version: str) -> None:
    shutil.rmtree(checkout / ".venv")
    python = checkout / "python"
    program = f"import sys; sys.version_info = {version}; exec(sys.argv[2])"
    python.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{program}' \"$@\"\n")
    python.chmod(0o755)
    refused = make(checkout, "install", f"PYTHON={python}")
    assert refused.returncode != 0
    assert "Python 3.11, 3.12, 3.13 or 3.14 is needed" in refused.stderr
    assert not (checkout / ".venv").exists()


def test_an_installation_that_failed_is_tried_again(checkout: Path) -> None:
    for verb in ("install", ".venv/.serve"):
        for _ in range(2):
            failed = make(checkout, verb, "TORCH_CPU_INDEX=", pip_ends=1)
            assert failed.returncode != 0
            assert "RAN pip install" in failed.stdout
    assert make(checkout, "install", "TORCH_CPU_INDEX=").returncode == 0
    assert "RAN" not in make(checkout, "install", "TORCH_CPU_INDEX=").stdout
