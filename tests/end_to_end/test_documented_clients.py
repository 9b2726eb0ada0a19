"""The clients of docs/http-api.md, as they stand there, get the answer of the server."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.conftest import image
from tests.support.served import ROOT, Served, serving
from tests.support.tiny_model import write_tiny_model

PAGE = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    models = tmp_path_factory.mktemp("models")
    write_tiny_model(models)
    with serving(models, "--processes", 1) as server:
        yield server


def output_of(served: Served, folder: Path, language: str, name: str, program: str) -> str:
    """Run the block of a language beside photo.jpg, against this server."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    (folder / name).write_text(block.replace("127.0.0.1:8000", f"127.0.0.1:{served.port}"))
    (folder / "photo.jpg").write_bytes(image((250, 10, 10)))
    command = [program, name, "photo.jpg"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


def best_label(served: Served) -> str:
    answer = served.ask("POST", "/classify", image((250, 10, 10)))[1]
    label: str = answer["predictions"][0]["label"]
    return label


def test_the_python_client_prints_the_best_label(served: Served, tmp_path: Path) -> None:
    assert output_of(served, tmp_path, "python", "client.py", sys.executable).split()[0] == best_label(served)


def test_the_javascript_client_prints_the_best_label(served: Served, tmp_path: Path) -> None:
    assert output_of(served, tmp_path, "js", "client.mjs", "node").split()[0] == best_label(served)


def test_the_java_client_prints_status_and_answer(served: Served, tmp_path: Path) -> None:
    text = output_of(served, tmp_path, "java", "Classify.java", "java")
    assert text.startswith("200 ") and f'"{best_label(served)}"' in text
