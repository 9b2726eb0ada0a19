"""The model that an installed wheel brings: served where there is no folder models/, and only there."""

import importlib.metadata
from pathlib import Path

import pytest

from service.model_files import installed_models as module
from service.model_files.installed_models import installed_models
from service.model_files.repository import ModelRepositoryError
from service.model_files.serving_set import find_models, locate_models
from tests.support.model_files.tiny_model import write_tiny_model

RECORD = "service/app.py,,\n../../../share/resnet-service/models/tiny/1/model.onnx,,\n../../../bin/serve-resnet,,\n"


class Installed(importlib.metadata.Distribution):
    """A distribution at the place of the tests."""

    def __init__(self, site: Path, record: str) -> None:
        self._site, self._record = site, record

    def read_text(self, filename: str) -> str | None:
        return self._record if filename == "RECORD" else None

    def locate_file(self, path: object) -> Path:  # type: ignore[override]
        return self._site / str(path)


@pytest.fixture
def prefix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment with the wheel installed; the current folder has no models/."""
    prefix = tmp_path / "venv"
    installed = Installed(prefix / "lib" / "python3" / "site-packages", RECORD)
    monkeypatch.setattr(module, "files", lambda _: installed.files)
    monkeypatch.chdir(tmp_path)
    write_tiny_model(prefix / "share" / "resnet-service" / "models")
    (prefix / "lib" / "python3" / "site-packages").mkdir(parents=True)
    return prefix


def test_the_model_of_the_wheel_serves_where_there_is_no_folder_of_models(prefix: Path) -> None:
    assert installed_models() == prefix / "share" / "resnet-service" / "models"
    (found,) = find_models(locate_models(Path("models")))
    assert (found.name, found.path.parts[-2:]) == ("tiny", ("1", "model.onnx"))


@pytest.mark.usefixtures("prefix")
def test_a_folder_of_models_comes_first_and_another_path_has_no_substitute(tmp_path: Path) -> None:
    with pytest.raises(ModelRepositoryError, match="there is no folder of models at other"):
        find_models(locate_models(Path("other")))
    write_tiny_model(tmp_path / "models", "mine")
    assert [file.name for file in find_models(locate_models(Path("models")))] == ["mine"]


def test_an_installation_without_models_has_none(prefix: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (prefix / "share").rename(prefix / "gone")
    assert installed_models() is None
    monkeypatch.setattr(module, "files", lambda _: None)
    assert installed_models() is None


def test_code_that_was_never_installed_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DISTRIBUTION", "no-such-distribution")
    assert installed_models() is None
