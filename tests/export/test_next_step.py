"""The commands after an export can be typed as they stand."""

import sys
from pathlib import Path

import pytest

from export.next_step import NEXT_COMMAND, next_steps, typed


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an installation's commands, not on the search path."""
    folder = tmp_path / "work" / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "serve-resnet", "classify", "export-onnx"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return folder


@pytest.mark.usefixtures("scripts")
def test_a_file_in_a_folder_of_models_is_served_by_its_name() -> None:
    assert next_steps(Path("models/pets-resnet18/2/model.onnx")) == [
        "next: .venv/bin/serve-resnet --models models --default-model pets-resnet18",
        "  or: .venv/bin/classify --models models --model pets-resnet18 photo.jpg",
    ]
    assert "--models '/srv/my models' --default-model a" in next_steps(Path("/srv/my models/a/1/model.onnx"))[0]
    assert "--models . --default-model a" in next_steps(Path("a/1/model.onnx"))[0]


@pytest.mark.usefixtures("scripts")
@pytest.mark.parametrize("path", ["tiny.onnx", "models/Pets/1/model.onnx", "models/pets/new/model.onnx"])
def test_a_file_elsewhere_is_checked_first(path: str) -> None:
    assert next_steps(Path(path))[0] == f"next: .venv/bin/export-onnx check {path}"


def test_a_command_on_the_search_path_is_typed_by_its_name(scripts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(scripts))
    assert typed("classify", "a b.jpg") == "classify 'a b.jpg'"


def test_a_container_says_what_is_typed_outside_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NEXT_COMMAND, "docker compose up")
    assert next_steps(Path("models/a/1/model.onnx")) == ["next: docker compose up"]
