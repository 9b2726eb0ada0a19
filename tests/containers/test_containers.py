"""What the image and the compose file promise, on a real Docker Engine; `make test-containers` runs it."""

import json
import os
import shutil
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from tests.containers import engine
from tests.containers.engine import IMAGE, MODELS, ROOT, base_image, classify, inspect, run, succeeds, wait_until_ready
from tests.support.servers.running_service import running_service

PROJECT = "resnet-service-test"  # apart from what someone may have running
PORT = int(os.environ.get("PUBLISH_PORT", "8000"))
ADDRESS = f"http://127.0.0.1:{PORT}"
LARGEST_MB = 240  # of what lies above the base, the shipped models included

pytestmark = [
    pytest.mark.containers,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not succeeds("docker", "version"), reason="no Docker Engine answers"),
]


def compose(*arguments: str) -> str:
    return engine.compose(PROJECT, *arguments)


def in_image(python: str) -> Any:
    """What a line of Python prints, as JSON, in a fresh container of the image."""
    return json.loads(run("docker", "run", "--rm", "--network", "none", "--entrypoint", "python", IMAGE, "-c", python))


def in_service(container: str, python: str) -> Any:
    """What a line of Python prints, as JSON, inside the running service."""
    return json.loads(run("docker", "exec", container, "python", "-c", python))


@pytest.fixture(scope="module")
def container(image: str) -> Iterator[str]:
    """The service of the compose file, up and ready; its container's id."""
    if not list(MODELS.glob("*/*/model.onnx")):
        pytest.skip("there is no model to serve")
    try:
        compose("up", "--build", "-d")
        started = compose("ps", "-q", "service").strip()
        wait_until_ready(started, ADDRESS)
        yield started
    finally:
        compose("down", "--volumes", "--timeout", "20")


def test_the_layers_above_the_base_are_small(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    above_base = (inspect(image)["Size"] - inspect(base_image())["Size"]) / 1e6
    with capsys.disabled():
        sys.stdout.write(f"\nlayers above the base: {above_base:.0f} MB\n")
    assert 50 < above_base <= LARGEST_MB


def test_the_image_has_the_service_and_neither_torch_nor_a_compiler(image: str) -> None:
    found = in_image(
        "import importlib.util as u, json, os, shutil; print(json.dumps(["
        "[name for name in ('torch', 'training', 'export', 'onnx', 'pytest') if u.find_spec(name)],"
        "[tool for tool in ('cc', 'gcc', 'g++', 'clang', 'make') if shutil.which(tool)],"
        "sorted(name for name in os.listdir('/app') + os.listdir('/app/bin') if 'dist-info' not in name)]))"
    )
    assert found == [[], [], ["bin", "classify", "serve-resnet", "service"]]


def test_the_image_runs_the_service_directly_as_a_user_without_rights(image: str) -> None:
    settings = inspect(image)["Config"]
    assert settings["User"] == "10001:10001"
    assert settings["Entrypoint"] == ["serve-resnet"]
    assert "ORT_DISABLE_TELEMETRY=1" in settings["Env"]
    assert settings["Healthcheck"]["Test"][0] == "CMD"


def test_the_container_answers_as_the_service_does_without_it(container: str, photo: bytes) -> None:
    with running_service(MODELS) as address:
        expected, answered = classify(address, photo), classify(ADDRESS, photo)
    assert answered["model"] == expected["model"]
    assert answered["image"] == {"format": "JPEG", "width": 500, "height": 375}
    assert [p["label"] for p in answered["predictions"]] == [p["label"] for p in expected["predictions"]]
    for ours, theirs in zip(answered["predictions"], expected["predictions"], strict=True):
        assert ours["probability"] == pytest.approx(theirs["probability"], abs=1e-5)


def test_the_page_comes_with_the_service(container: str) -> None:
    for path in ("/", "/app.js", "/page/state.js", "/parts/heat.js", "/images.css", "/samples/cat.jpg"):
        with urllib.request.urlopen(f"{ADDRESS}{path}", timeout=10) as response:
            assert response.read() == (ROOT / "service" / "web" / (path[1:] or "index.html")).read_bytes()


def test_the_engine_sees_that_the_service_is_healthy(container: str) -> None:
    deadline = time.monotonic() + 60
    while (health := inspect(container)["State"]["Health"]["Status"]) == "starting" and time.monotonic() < deadline:
        time.sleep(0.5)
    assert health == "healthy"


def test_the_process_is_user_10001_without_any_capability(container: str) -> None:
    status = in_service(
        container,
        "import json; lines = (line.split() for line in open('/proc/self/status'));"
        "print(json.dumps({words[0]: words[1] for words in lines if len(words) > 1}))",
    )
    assert status["Uid:"] == "10001"
    assert int(status["CapEff:"], 16) == int(status["CapBnd:"], 16) == 0
    assert status["NoNewPrivs:"] == "1"


def test_only_the_cache_and_tmp_can_be_written(container: str) -> None:
    writable = in_service(
        container,
        "import json\n"
        "def writable(folder):\n"
        "    try:\n"
        "        open(folder + '/probe', 'w').close()\n"
        "    except OSError:\n"
        "        return False\n"
        "    return True\n"
        "folders = ['/', '/app', '/opt/venv', '/models', '/var/tmp', '/cache', '/tmp']\n"
        "print(json.dumps(list(filter(writable, folders))))",
    )
    assert writable == ["/cache", "/tmp"]  # noqa: S108


def test_memory_and_processes_are_limited(container: str) -> None:
    limits = inspect(container)["HostConfig"]
    assert 0 < limits["Memory"] <= 4 * 2**30
    assert 0 < limits["PidsLimit"] <= 1024
    assert limits["Init"] is True
    assert limits["ReadonlyRootfs"] is True
    assert limits["RestartPolicy"]["Name"] == "unless-stopped"


def test_the_admin_port_listens_inside_the_network_only(container: str) -> None:
    published = inspect(container)["NetworkSettings"]["Ports"]
    assert published == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(PORT)}]}
    metrics = in_service(
        container,
        "import json, socket, urllib.request as u; address = socket.gethostbyname(socket.gethostname());"
        "print(json.dumps(u.urlopen(f'http://{address}:8001/metrics', timeout=5).status))",
    )
    assert metrics == 200


def test_the_shipped_settings_are_read_by_both_generations_of_compose() -> None:
    described = compose("config")
    assert "docker/service.Dockerfile" in described
    assert "stop_grace_period: 20s" in described
    if shutil.which("docker-compose"):
        assert run("docker-compose", "-p", PROJECT, "config") is not None


def test_it_stops_gracefully(container: str) -> None:  # the last one: after it nothing runs
    compose("stop")
    state = inspect(container)["State"]
    assert (state["Running"], state["OOMKilled"], state["ExitCode"]) == (False, False, 0)
