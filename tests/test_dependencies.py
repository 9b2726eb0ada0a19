"""What can be installed with nothing but the public index: every documented set of extras, for every Python.

uv resolves each set by the constraints that are documented for it, from wheels alone, and installs nothing. Where no
index answers, these tests are skipped. `tensorrt` is left out: its package is a stub that asks another index.
"""

import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

uv = pytest.importorskip("uv", reason="uv is not installed")

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LINUX, ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"

# Constraints and extras, as the Makefile, the Dockerfile, docs/ and the files of constraints themselves name them.
SERVICE = (("service-cpu", ""), ("service-cpu", "cpu"), ("service-cpu", "cpu,client,ray"))
GPU = (("service-gpu", ""), ("service-gpu", "gpu"))
ALL = "cpu,train,export,dev"
DEVELOPMENT = tuple(
    ("development", extras)
    for extras in ("", "cpu", "train", "export", "dev", "docs", "cpu,train", "cpu,export", "cpu,train,export", ALL)
)
SETS = SERVICE + GPU + DEVELOPMENT
_IMPATIENT = {"UV_FIND_LINKS": "", "UV_HTTP_TIMEOUT": "20", "UV_HTTP_RETRIES": "1", "UV_PYTHON_DOWNLOADS": "never"}


def resolve(constraints: str, extras: str, python: str, platform: str) -> dict[str, str]:
    """Return the versions of all packages that a set needs."""
    wanted = [word for extra in extras.split(",") if extra for word in ("--extra", extra)]
    done = compiled("pyproject.toml", "-c", f"constraints/{constraints}.txt", *wanted, python=python, platform=platform)
    if "failed to fetch" in done.stderr.lower():
        pytest.skip("the package index does not answer any more")
    assert done.returncode == 0, done.stderr
    return dict(line.split("==", 1) for line in done.stdout.splitlines())


def compiled(source: str, *options: str, python: str, platform: str) -> "subprocess.CompletedProcess[str]":
    command = [uv.find_uv_bin(), "pip", "compile", "--quiet", "--no-config", "--no-header", "--no-annotate"]
    command += ["--no-sources", "--only-binary", ":all:", "--python-version", python, "--python-platform", platform]
    return subprocess.run(
        [*command, *options, source],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("PIP_")} | _IMPATIENT,
        input="idna",
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )


@cache
def there_is_an_index() -> bool:
    return compiled("-", "--refresh", python=RUNNING, platform=LINUX).returncode == 0


@pytest.fixture
def index() -> None:
    if not there_is_an_index():
        pytest.skip("no package index can be reached")


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(("constraints", "extras"), SETS)
def test_every_documented_set_resolves_for_the_running_python(constraints: str, extras: str) -> None:
    found = resolve(constraints, extras, RUNNING, LINUX)
    assert found["fastapi"] == pins_of("service")["fastapi"]


@pytest.mark.long
@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("constraints", "extras"), SETS)
def test_every_documented_set_resolves_for_every_python(constraints: str, extras: str, python: str) -> None:
    resolve(constraints, extras, python, LINUX)


@pytest.mark.long
@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("constraints", "extras"), SERVICE + DEVELOPMENT)
def test_every_set_without_a_gpu_resolves_for_arm(constraints: str, extras: str, python: str) -> None:
    resolve(constraints, extras, python, ARM)


@pytest.mark.usefixtures("index")
def test_what_serves_is_pinned_whole() -> None:
    for constraints, extras in (("service-cpu", "cpu"), ("service-gpu", "gpu")):
        assert resolve(constraints, extras, RUNNING, LINUX).items() <= pins_of(constraints).items()


@pytest.mark.usefixtures("index")
def test_what_develops_is_pinned_but_for_what_torch_pins_itself() -> None:
    pins = pins_of("development")
    free = {name for name in resolve("development", ALL, RUNNING, LINUX) if name not in pins}
    assert {name for name in free if not name.startswith(("nvidia-", "cuda-"))} <= {"setuptools", "triton"}


@cache
def pins_of(constraints: str) -> dict[str, str]:
    """The versions of a file of constraints and of those that it includes."""
    pins: dict[str, str] = {}
    for line in (ROOT / "constraints" / f"{constraints}.txt").read_text().splitlines():
        if included := re.fullmatch(r"--constraint (\S+)\.txt", line):
            pins |= pins_of(included[1])
        elif not line.startswith("#"):
            name, version = line.split("==")
            assert name not in pins, f"{constraints}.txt pins {name} again"
            pins[name] = version
    return pins


def test_the_projects_own_pins_are_those_of_the_constraints() -> None:
    def exact(requirements: list[str]) -> dict[str, str]:
        found = (re.fullmatch(r"([\w-]+)(?:\[.*\])?==([^\s;]+)(?:;.*)?", requirement) for requirement in requirements)
        return {match[1]: match[2] for match in found if match}

    extras = PROJECT["optional-dependencies"]
    assert exact(PROJECT["dependencies"]).items() <= pins_of("service").items()
    assert exact(extras["cpu"]).items() <= pins_of("service-cpu").items()
    assert exact(extras["gpu"] + extras["tensorrt"]).items() <= pins_of("service-gpu").items()
    for extra in ("train", "export", "docs", "dev"):
        assert exact(extras[extra]).items() <= pins_of("development").items()


@pytest.mark.usefixtures("index")
def test_the_resizer_is_installed_where_it_has_a_wheel_and_fails_no_install_elsewhere() -> None:
    assert resolve("service-cpu", "cpu", RUNNING, LINUX)["cykooz-resizer"] == pins_of("service")["cykooz-resizer"]
    assert "cykooz-resizer" not in resolve("service-cpu", "cpu", RUNNING, ARM)


def test_development_leaves_nvidias_libraries_to_torch() -> None:
    assert [name for name in pins_of("development") if name.startswith("nvidia-")] == []


@pytest.mark.parametrize(
    "file",
    [
        "Makefile",
        "docs/getting-started.md",
        "docs/training.md",
        *(f"constraints/{name}.txt" for name, _ in SETS[::4]),
    ],
)
def test_each_documented_command_is_one_of_the_sets(file: str) -> None:
    text = (ROOT / file).read_text().replace("\\\n", " ")
    commands = re.findall(r"--constraint constraints/([\w-]+)\.txt[^\n]*?'\.(?:\[([\w,]+)\])?'", text)
    assert commands, "none is found"
    for constraints, extras in commands:
        assert (constraints, extras.replace(",tensorrt", "")) in SETS


def test_the_image_takes_the_constraints_of_its_flavour() -> None:
    text = (ROOT / "docker" / "service.Dockerfile").read_text()
    assert re.findall(r'--constraint "(\S+)"', text) == ["constraints/service-${FLAVOUR}.txt"]
    assert "cp constraints/service-cpu.lock requirements.txt" in text
    assert text.count("--require-hashes") == 2  # for the service on CPUs, and for what verifies signatures


def test_the_pythons_are_those_that_the_project_and_its_makefile_allow() -> None:
    assert PROJECT["requires-python"] == ">=3.11,<3.15"
    assert "(3, 11) <= sys.version_info < (3, 15)" in (ROOT / "Makefile").read_text()
