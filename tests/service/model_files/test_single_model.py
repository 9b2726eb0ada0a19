"""`--models` may be one model: its file, its folder, or its folder of versions."""

import os
from pathlib import Path

import pytest

from service.model_files.repository import ModelFile, ModelRepositoryError, model_names, versions_of
from service.model_files.serving_set import find_models, locate_models, read_serving_set
from service.model_files.single_model import as_name


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("content")
    return path


def found(path: Path, model_name: str | None = None) -> list[tuple[str, str, Path]]:
    return [(file.name, file.version, file.path) for file in find_models(locate_models(path, model_name))]


@pytest.mark.parametrize(
    ("file", "given", "name", "version"),
    [
        ("My Net v1.5.onnx", "My Net v1.5.onnx", "my-net-v1.5", "1"),
        ("net.ONNX", "net.ONNX", "net", "1"),
        ("net/model.onnx", "net/model.onnx", "net", "1"),
        ("net/3/model.onnx", "net/3/model.onnx", "net", "3"),
        ("net/other.onnx", "net/other.onnx", "other", "1"),
        ("2.onnx", "2.onnx", "2", "1"),
        ("_Net/model.onnx", "_Net", "net", "1"),
        ("net/3/model.onnx", "net/3", "net", "3"),
        ("net/3/model.onnx", "net", "net", "3"),
        ("net/03/model.onnx", "net/03", "03", "1"),
    ],
)
def test_a_single_model_has_the_name_and_version_of_its_place(
    tmp_path: Path, file: str, given: str, name: str, version: str
) -> None:
    path = put(tmp_path / file)
    assert found(tmp_path / given) == [(name, version, path)]
    assert found(tmp_path / given, "mine") == [("mine", version, path)]
    lineup = read_serving_set(locate_models(tmp_path / given), default_model=None)
    assert lineup.default == name


def test_the_name_of_a_relative_path_is_that_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "net" / "model.onnx")
    monkeypatch.chdir(tmp_path / "net")
    assert found(Path(".")) == [("net", "1", Path("model.onnx"))]


def test_the_highest_version_of_a_single_model_serves(tmp_path: Path) -> None:
    for version in ("1", "2", "10", "x"):
        put(tmp_path / "net" / version / "model.onnx")
    put(tmp_path / "net" / "config.pbtxt")
    location = locate_models(tmp_path / "net")
    assert [file.version for file in find_models(location)] == ["10"]
    assert [file.version for file in versions_of(location, "net", 2)] == ["2", "10"]
    assert versions_of(location, "other", 1) == []


@pytest.mark.parametrize("stray", ["model.onnx", "1/model.onnx"])
def test_a_folder_of_models_stays_one_whatever_else_lies_in_it(tmp_path: Path, stray: str) -> None:
    path = put(tmp_path / "net" / "1" / "model.onnx")
    put(tmp_path / stray)
    assert found(tmp_path) == [("net", "1", path)]


def test_a_name_is_only_for_a_single_model(tmp_path: Path) -> None:
    put(tmp_path / "net" / "1" / "model.onnx")
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ModelRepositoryError, match="--model-name mine needs a single model"):
            locate_models(path, "mine")


def test_a_name_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRepositoryError, match="'My Net' cannot be used: a model's name has 1 to 64"):
        locate_models(put(tmp_path / "net.onnx"), "My Net")


def test_a_file_that_is_no_model_is_no_folder_of_models(tmp_path: Path) -> None:
    with pytest.raises(ModelRepositoryError, match="is not a folder of models: it is a file"):
        find_models(locate_models(put(tmp_path / "notes.txt")))


def test_a_single_file_that_is_gone_has_no_version(tmp_path: Path) -> None:
    path = put(tmp_path / "net.onnx")
    location = locate_models(path)
    path.unlink()
    assert model_names(location) == ["net"]
    assert versions_of(location, "net", 1) == []
    with pytest.raises(ModelRepositoryError, match=r"net\.onnx no longer exists"):
        find_models(location)
    put(path)
    assert versions_of(location, "net", 1) == [ModelFile("net", "1", path)]


def test_a_file_that_is_named_itself_may_be_a_link_and_others_may_not_lead_out(tmp_path: Path) -> None:
    blob = put(tmp_path / "blobs" / "abc")
    for link in ("net.onnx", "net/model.onnx", "versions/1/model.onnx"):
        (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(blob, tmp_path / link)
    assert found(tmp_path / "net.onnx") == [("net", "1", tmp_path / "net.onnx")]
    assert found(tmp_path / "net" / "model.onnx") == [("net", "1", tmp_path / "net" / "model.onnx")]
    for folder in ("net", "versions"):
        with pytest.raises(ModelRepositoryError, match="link out of the folder"):
            find_models(locate_models(tmp_path / folder))


@pytest.mark.parametrize(
    ("text", "name"),
    [("ResNet (50)", "resnet-50"), ("...", "model"), ("", "model"), ("é1", "1"), ("a" * 80, "a" * 64)],
)
def test_a_text_becomes_the_nearest_name(text: str, name: str) -> None:
    assert as_name(text) == name
