"""The image without the compose file, and the settings that open it: other models, metrics, keys."""

import hashlib
import json
import re
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.engine import (
    ROOT,
    classify,
    compose,
    container_of,
    log_of,
    published,
    run,
    succeeds,
    wait_until_ended,
    wait_until_ready,
)

SHIPPED = {"cifar10-resnet20", "cifar10-resnet56", "everyday-resnet18-int8"}
HERE = "127.0.0.1::8000"  # a port that is free

pytestmark = [
    pytest.mark.containers,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not succeeds("docker", "version"), reason="no Docker Engine answers"),
    pytest.mark.usefixtures("image"),
]


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that every user can reach, as pytest's own cannot be."""
    folder = ROOT / "build" / "container-test"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def models_at(address: str) -> set[str]:
    with urllib.request.urlopen(f"{address}/models", timeout=10) as response:
        return {model["name"] for model in json.load(response)["models"]}


def status_of(request: urllib.request.Request | str) -> int:
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_the_image_serves_the_shipped_models_by_itself(photo: bytes) -> None:
    with container_of("-p", HERE) as container:
        address = published(container, 8000)
        wait_until_ready(container, address)
        assert classify(address, photo)["model"]["name"] == "everyday-resnet18-int8"
        assert models_at(address) == SHIPPED


def test_a_mount_replaces_the_shipped_models(folder: Path, photo: bytes) -> None:
    shutil.copytree(ROOT / "models" / "cifar10-resnet20", folder / "mine")
    with container_of("-p", HERE, "-v", f"{folder}:/models:ro") as container:
        address = published(container, 8000)
        wait_until_ready(container, address)
        assert models_at(address) == {"mine"}
        assert classify(address, photo)["model"]["name"] == "mine"


def test_an_empty_mount_says_what_to_mount(folder: Path) -> None:
    with container_of("-v", f"{folder}:/models:ro") as container:
        text = wait_until_ended(container)
    assert "there is no model in /models: put one at <name>/<version>/model.onnx" in text
    assert "-v $PWD/models:/models:ro" in text


def test_a_mount_that_its_user_may_not_read_is_not_said_to_be_missing(folder: Path) -> None:
    folder.chmod(0o700)
    with container_of("-v", f"{folder}:/models:ro") as container:
        text = wait_until_ended(container)
    assert "cannot be read by user id 10001" in text
    assert "there is no" not in text


def test_a_start_that_memory_does_not_suffice_for_names_the_limit() -> None:
    with container_of("--memory", "100m", "-e", "RESNET_PROCESSES=2") as container:
        text = wait_until_ended(container)
    assert "the limit is 100 MiB; raise it, with --memory" in text


def test_publishing_the_admin_port_shows_metrics_without_model_changes() -> None:
    with container_of("-p", HERE, "-p", "127.0.0.1::8001") as container:
        admin = published(container, 8001)
        wait_until_ready(container, published(container, 8000))
        with urllib.request.urlopen(f"{admin}/metrics", timeout=10) as response:
            assert b"resnet_requests_total" in response.read()
        load = urllib.request.Request(f"{admin}/admin/models/cifar10-resnet20/unload", method="POST")
        assert status_of(load) == 403


def test_health_checks_leave_the_log() -> None:
    with container_of("-p", HERE) as container:
        address = published(container, 8000)
        wait_until_ready(container, address)
        for path in ("/health/live", "/health/ready", "/v2/health/ready", "/models"):
            assert status_of(address + path) == 200
        while '"route":"/models"' not in log_of(container):  # the test's own timeout is the limit
            time.sleep(0.1)
        lines = [json.loads(line) for line in log_of(container).splitlines()]
    assert [line["route"] for line in lines if line["message"] == "request"] == ["/models"]


def test_compose_takes_keys_and_publishes_metrics_by_variables(folder: Path, photo: bytes) -> None:
    for name in ("api", "admin"):
        (folder / name).write_text(f"alice {hashlib.sha256(name.encode()).hexdigest()}\n")
    port, admin_port = _free_ports()
    settings = {
        "COMPOSE_FILE": _example("COMPOSE_FILE"),
        "PUBLISH_PORT": str(port),
        "PUBLISH_ADMIN": f"127.0.0.1:{admin_port}",
        "KEYS_FOLDER": str(folder),
        "RESNET_API_KEYS_FILE": _example("RESNET_API_KEYS_FILE"),
        "RESNET_ADMIN_KEYS_FILE": _example("RESNET_ADMIN_KEYS_FILE"),
    }
    project, address, admin = "resnet-service-test-keys", f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}"
    try:
        compose(project, "up", "--build", "-d", environment=settings)
        container = compose(project, "ps", "-q", "service", environment=settings).strip()
        wait_until_ready(container, address)
        assert status_of(f"{address}/models") == 401
        assert classify(address, photo, **{"X-Api-Key": "api"})["model"]["name"] == "everyday-resnet18-int8"
        assert status_of(f"{admin}/metrics") == 200
        load = f"{admin}/admin/models/cifar10-resnet20/load"
        assert status_of(urllib.request.Request(load, method="POST")) == 401
        key = {"Authorization": "Bearer admin"}
        assert status_of(urllib.request.Request(load, method="POST", headers=key)) == 200
    finally:
        compose(project, "down", "--volumes", "--timeout", "20", environment=settings)


def test_a_photo_of_the_host_is_classified_inside_as_the_readme_shows(photo: bytes) -> None:
    with container_of() as container:
        answer = run("docker", "exec", "-i", container, "classify", "-", given=photo)
    assert "%" in answer


def _example(name: str) -> str:
    """What `.env.example` shows for a variable."""
    found = re.search(rf"^# {name}=(\S+)", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def _free_ports() -> tuple[int, int]:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        return one.getsockname()[1], other.getsockname()[1]
