"""A Docker Engine, asked by its own commands.

BASE_IMAGE, MODELS_FOLDER and PUBLISH_PORT mean what they mean to the compose file. Where BASE_IMAGE is unset and the
engine has an image `python-slim-local`, that one is the base: so the tests also run where no registry can be reached.
"""

import contextlib
import http.client
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
IMAGE = "resnet-service:test"
MODELS = Path(os.environ.get("MODELS_FOLDER", ROOT / "models")).resolve()
LOCAL_BASE = "python-slim-local"
_NOTHING: Mapping[str, str] = MappingProxyType({})


def succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def base_image() -> str:
    local = succeeds("docker", "image", "inspect", LOCAL_BASE)
    return os.environ.get("BASE_IMAGE", LOCAL_BASE if local else "python:3.11-slim")


def run(*command: str, environment: Mapping[str, str] = _NOTHING, given: bytes = b"") -> str:
    """Run a command in the project's root and return what it wrote; its complaints become the test's."""
    settings = {**os.environ, "BASE_IMAGE": base_image(), "MODELS_FOLDER": str(MODELS), **environment}
    done = subprocess.run(command, capture_output=True, check=False, cwd=ROOT, env=settings, timeout=800, input=given)
    said, complaints = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, f"{' '.join(command)}: {said[-2000:]}{complaints[-2000:]}"
    return said


def compose(project: str, *arguments: str, environment: Mapping[str, str] = _NOTHING) -> str:
    command = ["docker", "compose"] if succeeds("docker", "compose", "version") else ["docker-compose"]
    return run(*command, "-p", project, *arguments, environment=environment)


def inspect(name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = json.loads(run("docker", "inspect", name))
    return found[0]


def published(container: str, port: int) -> str:
    """Return the address at which a port of a container can be reached."""
    return "http://" + run("docker", "port", container, str(port)).split()[0]


@contextlib.contextmanager
def container_of(*options: str) -> Iterator[str]:
    """Run a container of the image until the block ends; the value is its id."""
    started = run("docker", "run", "--detach", *options, IMAGE).strip()
    try:
        yield started
    finally:
        run("docker", "rm", "--force", "--volumes", started)


def wait_until_ready(container: str, address: str) -> None:
    deadline = time.monotonic() + 60
    while inspect(container)["State"]["Running"] and time.monotonic() < deadline:
        if is_ready(address):
            return
        time.sleep(0.1)
    pytest.fail(f"the service is not ready: {log_of(container)}")


def wait_until_ended(container: str) -> str:
    """Return all that a container has written, which ends by itself with status 1."""
    deadline = time.monotonic() + 60
    while inspect(container)["State"]["Running"] and time.monotonic() < deadline:
        time.sleep(0.1)
    state = inspect(container)["State"]
    assert (state["Running"], state["ExitCode"]) == (False, 1), log_of(container)
    return log_of(container)


def log_of(container: str) -> str:
    done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True, timeout=30)
    return done.stdout + done.stderr


def is_ready(address: str) -> bool:
    host = address.removeprefix("http://")
    with contextlib.closing(http.client.HTTPConnection(host, timeout=5)) as connection:
        try:
            connection.request("GET", "/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False


def classify(address: str, image: bytes, **headers: str) -> dict[str, Any]:
    headers["Content-Type"] = "image/jpeg"
    request = urllib.request.Request(f"{address}/classify", data=image, headers=headers)
    with urllib.request.urlopen(request, timeout=30) as response:
        answer: dict[str, Any] = json.load(response)
    return answer
