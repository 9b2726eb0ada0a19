"""What cannot be read says who may not read it, and what is needed; as another user where the tests are root's."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.model_files.permissions import why_unreadable
from tests.support.servers.served import ROOT

USER = 65_534 if os.geteuid() == 0 else os.geteuid()
PROBE = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from service.inference.registry import load_models, read_model
from service.model_files.repository import ModelRepositoryError
from service.model_files.serving_set import read_serving_set
os.setgroups([]) if os.geteuid() == 0 else None
if os.geteuid() == 0:
    os.setgid(int(sys.argv[3])), os.setuid(int(sys.argv[3]))
try:
    files = read_serving_set(Path(sys.argv[1]), default_model=None).files
    print(json.dumps([read_model(file).decode() for file in files]))
except ModelRepositoryError as error:
    print(json.dumps([str(error), error.reason]))
"""


def read_as_another_user(folder: Path) -> list[str]:
    """What that user reads of the models, or the error's text and its reason."""
    command = [sys.executable, "-c", PROBE, folder, ROOT, str(USER)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    answer: list[str] = json.loads(done.stdout)
    return answer


@pytest.fixture
def models() -> Iterator[Path]:
    """A folder of models that everybody may read, where everybody may look: pytest's own folders are one user's."""
    with tempfile.TemporaryDirectory() as outer:
        folder = Path(outer) / "models"
        (folder / "a" / "1").mkdir(parents=True)
        (folder / "a" / "1" / "model.onnx").write_text("content")
        for path in (Path(outer), folder, folder / "a", folder / "a" / "1"):
            path.chmod(0o755)
        (folder / "a" / "1" / "model.onnx").chmod(0o644)
        yield folder


def test_what_may_be_read_is_read(models: Path) -> None:
    assert read_as_another_user(models) == ["content"]


@pytest.mark.parametrize(
    ("closed", "mode", "needed"),
    [
        (".", 0o700, "list and enter"),
        ("a", 0o700, "list and enter"),
        ("a/1", 0o700, "list and enter"),
        ("a/1/model.onnx", 0o600, "read"),
    ],
)
def test_the_error_says_which_user_needs_what(models: Path, closed: str, mode: int, needed: str) -> None:
    (models / closed).chmod(mode if os.geteuid() == 0 else 0)
    shown = mode if os.geteuid() == 0 else 0
    text, reason = read_as_another_user(models)
    (models / closed).chmod(0o755)
    assert str(models) in text
    for words in (f"user id {USER}", f"belongs to user id {os.geteuid()}", f"mode {shown:04o}", needed, "permissions"):
        assert words in text and words in reason
    assert "there is no folder" not in text
    if closed != ".":
        assert str(models) not in reason, "a client sees it"


def test_a_folder_above_is_named_as_that(models: Path) -> None:
    models.parent.chmod(0o700 if os.geteuid() == 0 else 0)
    text, _ = read_as_another_user(models)
    models.parent.chmod(0o755)
    assert "a folder above it belongs to user id" in text


def test_other_reasons_are_reported_in_the_systems_words(tmp_path: Path) -> None:
    assert why_unreadable(tmp_path, OSError(5, "Input/output error")) == (
        ": input/output error; check the disk, or the mount"
    )
