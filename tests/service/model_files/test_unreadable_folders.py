"""A folder of models or a file of keys that cannot be read is told apart from one that is not there."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.access_control.api_keys import BadKeyFile, read_key_file
from service.model_files.repository import ModelRepositoryError
from service.model_files.serving_set import find_models

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Look at files as a user without rights."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a model; everybody may read it and, unlike pytest's own, the folders above it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        version = Path(name) / "net" / "1"
        version.mkdir(parents=True)
        (version / "model.onnx").touch()
        yield Path(name)


def refusal(read: Callable[[Path], object], path: Path) -> str:
    with pytest.raises((ModelRepositoryError, BadKeyFile)) as refused:
        read(path)
    return str(refused.value)


@needs_root
@pytest.mark.parametrize("mode", [0o700, 0o711])
def test_a_folder_of_models_that_may_not_be_read_names_the_user_and_what_to_do(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    with as_nobody():
        text = refusal(find_models, folder)
    assert text == (
        f"the folder of models {folder} cannot be read by user id {NOBODY}: it belongs to user id 0, group id 0, with "
        f"mode {mode:04o}; change its owner or permissions so that user id {NOBODY} can list and enter it"
    )


@needs_root
@pytest.mark.parametrize("mode", [0o744, 0o755])
def test_a_folder_that_may_be_listed_but_not_entered_is_not_said_to_be_empty(folder: Path, mode: int) -> None:
    folder.chmod(mode)
    (folder / "net").chmod(0o700)
    (folder / "link").symlink_to("net")
    with as_nobody():
        text = refusal(find_models, folder)
    assert "there is no" not in text
    assert "cannot be read" in text


@needs_root
def test_a_folder_below_one_that_may_not_be_read_is_not_said_to_be_missing(tmp_path: Path) -> None:
    with as_nobody():
        text = refusal(find_models, tmp_path / "models")  # pytest's folders are private
    assert f"cannot be read by user id {NOBODY}" in text


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    text = refusal(find_models, tmp_path / "none")
    assert text == f"there is no folder of models at {tmp_path / 'none'}; name one with --models"


def test_a_file_in_the_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "models").touch()
    for place in ("models", "models/inner"):
        assert "is not a folder of models" in refusal(find_models, tmp_path / place)


@pytest.mark.parametrize("inner", [".", "none"])
def test_in_the_image_the_advice_is_a_mount(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, inner: str) -> None:
    monkeypatch.setattr("service.model_files.repository._IN_THE_IMAGE", tmp_path / inner)
    assert f"docker run -v $PWD/models:{tmp_path / inner}:ro" in refusal(find_models, tmp_path / inner)


def test_a_file_of_keys_says_why_it_cannot_be_used_and_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("binary").write_bytes(b"\xff\xfe")
    missing = refusal(read_key_file, Path("none"))
    assert missing.startswith(f"{tmp_path / 'none'} cannot be read as a file of API keys: there is no such file;")
    assert "it is a folder" in refusal(read_key_file, tmp_path)
    assert "it is not text" in refusal(read_key_file, Path("binary"))


@needs_root
def test_a_file_of_keys_that_may_not_be_read_names_the_user(folder: Path) -> None:
    (folder / "keys").touch(mode=0o600)
    with as_nobody():
        assert f"user {NOBODY} may not read it" in refusal(read_key_file, folder / "keys")
