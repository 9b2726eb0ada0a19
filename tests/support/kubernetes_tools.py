"""helm, kubectl and the schemas of Kubernetes, as `make deploy-tools` installs them; tests skip without."""

import functools
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
TOOLS = Path(os.environ.get("DEPLOY_TOOLS", ROOT / ".tools"))
CHART = ROOT / "deploy" / "chart"


def program(name: str) -> str:
    """Return the path of helm or kubectl."""
    found = shutil.which(name, path=f"{TOOLS / 'bin'}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed: make deploy-tools")
    return found


def python_of_tools() -> str:
    """Return the interpreter whose environment has the schemas."""
    python = TOOLS / "venv" / "bin" / "python"
    if not python.exists():
        pytest.skip("the schemas are not installed: make deploy-tools")
    return str(python)


def run(command: list[str], text: str | None = None, timeout_s: float = 500) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end."""
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=timeout_s, check=False)


@functools.cache
def rendered(*options: str) -> list[dict[str, Any]]:
    """Return the objects that helm makes of the chart."""
    done = run([program("helm"), "template", "demo", str(CHART), "--namespace", "vision", *options])
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def one(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return the only object of a kind."""
    (found,) = [candidate for candidate in objects if candidate["kind"] == kind]
    return found
