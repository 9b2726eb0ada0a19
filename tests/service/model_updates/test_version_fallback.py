"""What serves when a start has failed: the newest versions that load, and no model that has none."""

from dataclasses import replace
from pathlib import Path

import pytest

from service.model_files.repository import ModelFile, ModelRepositoryError, ServingSet
from service.model_files.serving_set import read_serving_set
from service.model_updates.model_validation import RepositoryConfig
from service.model_updates.version_fallback import VersionFallback

pytestmark = pytest.mark.anyio


def put(root: Path, **files: str) -> None:
    for name, content in files.items():
        model, version = name.rsplit("_", 1)
        path = root / model / version / "model.onnx"
        path.parent.mkdir(parents=True)
        path.write_text(content)


async def validate(file: ModelFile, _: frozenset[str]) -> ModelFile:
    if file.path.read_text() != "good":
        raise ModelRepositoryError("it is bad")
    return replace(file, sha256="good", has_card=True)


def version_fallback(root: Path, default: str = "a", latest: int = 1) -> VersionFallback:
    serving_set = read_serving_set(root, default_model=default, latest=latest)
    return VersionFallback(RepositoryConfig(root, latest, serving_set, lambda *_: 0, 1.0), validate)


def described(serving_set: ServingSet) -> tuple[list[str], dict[str, str]]:
    serving = [f"{file.name}:{file.version}" for file in serving_set.files]
    return serving, {
        f"{state.name}:{state.version}": f"{state.state} {state.reason}".strip() for state in serving_set.states
    }


async def test_the_newest_good_version_of_each_model_serves_and_the_newer_ones_are_refused(tmp_path: Path) -> None:
    put(tmp_path, a_1="good", a_2="good", a_3="bad", a_10="bad", b_1="good")
    serving, states = described(await version_fallback(tmp_path).choose("it failed"))
    assert serving == ["a:2", "b:1"]
    assert states == {
        "a:2": "LOADING",
        "a:3": "UNAVAILABLE it is bad",
        "a:10": "UNAVAILABLE it is bad",
        "b:1": "LOADING",
    }


async def test_as_many_good_versions_serve_as_configured(tmp_path: Path) -> None:
    put(tmp_path, a_1="good", a_2="good", a_3="bad", a_4="good", a_5="bad", b_7="good")
    serving, _ = described(await version_fallback(tmp_path, latest=2).choose("it failed"))
    assert serving == ["a:2", "a:4", "b:7"]


async def test_a_model_without_a_good_version_fails_the_start_with_what_is_wrong(tmp_path: Path) -> None:
    put(tmp_path, a_1="good", a_2="bad", b_1="bad", b_2="bad")
    with pytest.raises(ModelRepositoryError, match=r"b/2/model.onnx: it is bad"):
        await version_fallback(tmp_path).choose("it failed")


async def test_where_there_is_nothing_to_choose_from_the_start_fails_as_it_did(tmp_path: Path) -> None:
    put(tmp_path, a_1="bad", b_1="good")
    found = version_fallback(tmp_path)
    assert not found.has_alternatives
    with pytest.raises(ModelRepositoryError, match="it failed"):
        await found.choose("it failed")


async def test_versions_are_tried_once(tmp_path: Path) -> None:
    put(tmp_path, a_1="good", a_2="bad")
    found = version_fallback(tmp_path)
    await found.choose("it failed")
    assert not found.has_alternatives
    with pytest.raises(ModelRepositoryError, match="it failed again"):
        await found.choose("it failed again")


def test_a_version_that_is_no_file_gives_way_to_the_one_before(tmp_path: Path) -> None:
    put(tmp_path, a_1="good", a_2="good")
    (tmp_path / "a" / "2" / "model.onnx").unlink()
    (tmp_path / "a" / "2" / "model.onnx").symlink_to("nothing")
    (tmp_path / "a" / "3" / "model.onnx").mkdir(parents=True)
    serving, states = described(read_serving_set(tmp_path, default_model=None))
    assert serving == ["a:1"]
    assert states == {
        "a:1": "LOADING",
        "a:2": "UNAVAILABLE the file does not exist, or is a broken link",
        "a:3": "UNAVAILABLE it is not a file",
    }
