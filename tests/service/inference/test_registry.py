"""The folder of models: which files serve, which answers by default, and what stops a start."""

import hashlib
import os
from functools import partial
from pathlib import Path

import pytest

from service.errors import NotFound, NotReady
from service.inference.registry import Registry, load, load_models, read_model
from service.model_files.default_model import DefaultModel
from service.model_files.local_copies import store
from service.model_files.repository import ModelFile, ModelRepositoryError
from service.model_files.serving_set import choose_model, find_models, read_serving_set, warn_about_ignored_folders
from tests.support.model_files.tiny_model import write_tiny_model


def put(folder: Path, *names: str) -> None:
    """Make files that are found but need not load."""
    for name in names:
        path = folder / name / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")


def served(folder: Path, default: str | None = None, latest: int = 1) -> Registry:
    registry = Registry()
    serving_set = read_serving_set(folder, default_model=default, latest=latest)
    models = load_models(serving_set.files, partial(load, providers="cpu", max_batch=1), 60)
    registry.serve(models, serving_set.default)
    return registry


def test_of_each_model_the_highest_version_serves(tmp_path: Path) -> None:
    put(tmp_path, "b/9", "b/10", "a/2")
    assert [(file.name, file.version) for file in find_models(tmp_path)] == [("a", "2"), ("b", "10")]


def test_a_folder_that_is_no_version_is_ignored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path, "a/1", "a/01", "a/0", "a/v2", "a/-3", "a/latest", ".hidden/1")
    (tmp_path / "a" / "4").mkdir()  # an export that has not finished
    (tmp_path / "a" / "config.pbtxt").touch()
    (tmp_path / "README.md").touch()
    assert find_models(tmp_path) == [ModelFile("a", "1", tmp_path / "a" / "1" / "model.onnx")]
    warn_about_ignored_folders(tmp_path)
    assert all(f"a/{name} is ignored: a version is" in caplog.text for name in ("01", "0", "v2", "-3", "latest"))
    assert "hidden" not in caplog.text and "a/4" not in caplog.text


def test_a_version_may_be_a_moment(tmp_path: Path) -> None:
    put(tmp_path, "a/1764310000", "a/999999999")
    assert [file.version for file in find_models(tmp_path)] == ["1764310000"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "link": lambda: path.symlink_to("nothing")}[kind]()
    with pytest.raises(ModelRepositoryError, match="broken link" if kind == "link" else "not a file"):
        find_models(tmp_path)


def test_a_folder_without_a_version_is_ignored_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    put(tmp_path, "first/1")
    serving_set = read_serving_set(tmp_path, default_model=None)
    assert [file.name for file in serving_set.files] == ["first"]
    warn_about_ignored_folders(tmp_path)
    assert "empty is ignored: it has no <version>/model.onnx" in caplog.text


@pytest.mark.parametrize("name", ["Cats", "my model", "_x", "-x", "a" * 65, "é"])
def test_a_name_that_no_request_could_contain_is_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, f"{name}/1")
    with pytest.raises(ModelRepositoryError, match="lower-case letters"):
        find_models(tmp_path)


def test_a_link_out_of_the_folder_is_refused_and_one_within_is_fine(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "models"
    put(outside, "secret/1")
    put(folder, "a/1")
    (folder / "b").symlink_to(folder / "a")
    assert [file.name for file in find_models(folder)] == ["a", "b"]
    (folder / "c").symlink_to(outside / "secret")
    with pytest.raises(ModelRepositoryError, match="link out of the folder"):
        find_models(folder)


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    put(tmp_path / "real", "a/1")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert [file.name for file in find_models(tmp_path / "link")] == ["a"]


def test_no_folder_and_an_empty_folder_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelRepositoryError, match="--models"):
        find_models(tmp_path / "nowhere")
    with pytest.raises(ModelRepositoryError, match="export-onnx"):
        find_models(tmp_path)


def files(*names: str) -> list[ModelFile]:
    return [ModelFile(name, "1", Path(name)) for name in names]


def test_the_default_is_the_one_named_else_by_the_rule() -> None:
    assert choose_model(files("a", "b"), "b", flag="--x") == DefaultModel("b", "--x names it")
    assert choose_model(files("a"), None, flag="--x").name == "a"
    assert choose_model(files("cifar10-resnet56", "everyday-resnet18"), None, flag="--x").name == "everyday-resnet18"


def test_a_model_that_takes_no_images_is_not_the_default_beside_one_that_does(
    tmp_path: Path, model_file: bytes
) -> None:
    write_tiny_model(tmp_path, "cifar10-resnet56", "1", model_file)
    write_tiny_model(tmp_path, "detector", "1", b"a graph and no more")
    assert choose_model(find_models(tmp_path), None, flag="--x").name == "cifar10-resnet56"
    write_tiny_model(tmp_path, "pets", "1", model_file)
    assert choose_model(find_models(tmp_path), None, flag="--x").name == "pets"


def test_the_serving_set_says_why_its_default_is_the_default(tmp_path: Path) -> None:
    put(tmp_path, "imagenet-resnet50/1", "cifar10-resnet56/1")
    serving_set = read_serving_set(tmp_path, default_model=None)
    assert serving_set.default == "imagenet-resnet50" and "imagenet-* comes first" in serving_set.why_default
    assert read_serving_set(tmp_path, default_model="cifar10-resnet56").why_default == "--default-model names it"


def test_without_a_default_the_start_is_refused_with_the_names() -> None:
    with pytest.raises(ModelRepositoryError, match="several models of your own; choose one with --x: a, b"):
        choose_model(files("a", "b"), None, flag="--x")
    with pytest.raises(ModelRepositoryError, match="no model 'c' for --x; there are: a, b"):
        choose_model(files("a", "b"), "c", flag="--x")


def test_models_are_found_by_name_and_by_name_and_version(tmp_path: Path, model_file: bytes) -> None:
    write_tiny_model(tmp_path, "first", "3", model_file)
    write_tiny_model(tmp_path, "second", "1", model_file)
    registry = served(tmp_path, "second")
    assert registry.find(None).info.name == "second"
    assert registry.find("first") is registry.find("first:3")
    assert [classifier.info.name for classifier in registry] == ["first", "second"]
    assert [registry.is_default(classifier) for classifier in registry] == [False, True]


def test_several_versions_of_a_model_may_serve_and_the_highest_answers(tmp_path: Path, model_file: bytes) -> None:
    for version in ("2", "9", "10"):
        write_tiny_model(tmp_path, "first", version, model_file)
    registry = served(tmp_path, latest=2)
    assert registry.find(None) is registry.find("first") is registry.find("first:10")
    assert registry.find("first:9").info.version == "9"
    assert [registry.is_default(model) for model in registry] == [False, True]
    with pytest.raises(NotFound):
        registry.find("first:2")


@pytest.mark.parametrize("name", ["third", "first:1", "first:", "", ":", "first:3:3", "First", "../first", "first\n"])
def test_an_unknown_name_is_not_found(tmp_path: Path, model_file: bytes, name: str) -> None:
    write_tiny_model(tmp_path, "first", "3", model_file)
    with pytest.raises(NotFound) as failure:
        served(tmp_path).find(name)
    assert failure.value.code == "model_not_found"


def test_before_the_models_are_loaded_nothing_is_ready() -> None:
    with pytest.raises(NotReady):
        Registry().find("first")


def test_a_broken_model_stops_the_start_with_one_line_that_names_it(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path, "broken", "1", b"not a model")
    with pytest.raises(ModelRepositoryError) as failure:
        served(tmp_path)
    assert str(failure.value).startswith(f"{path}: ")
    assert "\n" not in str(failure.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_model_that_may_not_be_read_stops_the_start(tmp_path: Path, model_file: bytes) -> None:
    write_tiny_model(tmp_path, "locked", "1", model_file).chmod(0)
    with pytest.raises(ModelRepositoryError, match="permissions"):
        served(tmp_path)


def test_a_kept_copy_is_read_whatever_became_of_the_folder(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"content").hexdigest()
    store(tmp_path / "cache", digest, b"content")
    file = ModelFile("a", "1", tmp_path / "gone" / "a" / "1" / "model.onnx", digest)
    assert read_model(file, tmp_path / "cache") == b"content"
    with pytest.raises(ModelRepositoryError, match="cannot be read"):
        read_model(file)


def test_a_file_in_place_of_a_folder_is_distinguished_from_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelRepositoryError, match="is not a folder"):
        find_models(tmp_path / "file")
    with pytest.raises(ModelRepositoryError, match="there is no folder"):
        find_models(tmp_path / "missing")


def test_what_is_left_out_is_no_reason_to_fail(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_about_ignored_folders(tmp_path / "missing")
    assert "there is no folder of models" in caplog.text
