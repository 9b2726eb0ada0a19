"""The supervisor's decisions about what serves, without a process and without a model."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from service.errors import ModelRefused, NotFound
from service.model_files.repository import ModelFile, ModelRepositoryError, VersionState
from service.model_files.serving_set import read_serving_set
from service.model_updates.model_rollout import ModelRollout
from service.model_updates.model_updater import ModelUpdater
from service.model_updates.model_validation import RepositoryConfig
from service.model_updates.version_states import Outcome, VersionStates
from service.processes.worker_fleet import WorkerFleet
from tests.support.fake_worker import FakeWorker

pytestmark = pytest.mark.anyio


class Folder:
    """A folder of models and its updater, without workers; a file is good if it contains the word."""

    def __init__(self, root: Path, *files: str) -> None:
        self.root = root
        self.counts: list[Outcome] = []
        for file in files:
            self.put(file)
        serving_set = read_serving_set(root, default_model="a")
        repository = RepositoryConfig(root, 1, serving_set, lambda *_: 0, 1.0)
        states = VersionStates(self.counts.append)
        self.rollout = ModelRollout(serving_set, states, WorkerFleet(no_worker, 1.0))
        self.updater = ModelUpdater(repository, validate=self.validate, states=states, rollout=self.rollout)

    def put(self, file: str, content: str = "good") -> Path:
        path = self.root / file / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    async def validate(self, file: ModelFile, _: frozenset[str]) -> ModelFile:
        content = file.path.read_text()
        if "good" not in content:
            raise ModelRepositoryError("it is bad")
        return replace(file, sha256=content, has_card="tensors" not in content)

    async def start(self) -> ModelUpdater:
        files = self.rollout.serving_set.files
        await self.load(tuple(replace(file, sha256="good", has_card=True) for file in files))
        return self.updater

    async def load(self, files: tuple[ModelFile, ...]) -> None:
        """Bring a worker up to date that has loaded these files."""
        worker = FakeWorker()
        worker.files = files
        assert await self.rollout.bring_up_to_date(worker) is None  # type: ignore[arg-type]

    def serving(self) -> list[str]:
        return [f"{file.name}:{file.version}" for file in self.rollout.serving_set.files]

    def states(self) -> tuple[VersionState, ...]:
        return self.rollout.serving_set.states


async def no_worker(_: object) -> NoReturn:
    raise AssertionError("no worker is started")


async def test_a_link_out_of_the_folder_is_refused_by_itself(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "models", "a/1", "b/1")
    updater = await folder.start()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.onnx").write_text("good")
    (folder.root / "b" / "2").symlink_to(outside)
    (folder.root / "c").symlink_to(outside.parent)
    shutil.copytree(outside, tmp_path / "1")
    await updater.reload()
    assert folder.serving() == ["a:1", "b:1"]
    states = {(state.name, state.version): state for state in folder.states()}
    assert [(key, state.state) for key, state in states.items()] == [
        (("a", "1"), "READY"),
        (("b", "1"), "READY"),
        (("b", "2"), "UNAVAILABLE"),
        (("c", "1"), "UNAVAILABLE"),
    ]
    for key in (("b", "2"), ("c", "1")):
        assert "link out of the folder" in states[key].reason
        assert str(tmp_path) not in states[key].reason
    with pytest.raises(ModelRefused, match="link out of the folder"):
        await updater.change("load", "b")


async def test_a_version_without_a_card_does_not_take_the_images_from_one_with(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a/1", "b/1")
    updater = await folder.start()
    folder.put("b/2", "good tensors")
    with pytest.raises(ModelRefused, match="unload the model first"):
        await updater.change("load", "b")
    assert folder.serving() == ["a:1", "b:1"]
    await updater.change("unload", "b")
    await updater.change("load", "b")
    assert folder.serving() == ["a:1", "b:2"]
    folder.put("b/3")
    await updater.change("load", "b")  # the other way round is a gain
    assert folder.serving() == ["a:1", "b:3"]


async def test_nothing_is_said_of_what_has_no_folder_any_more(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a/1", "b/1")
    updater = await folder.start()
    folder.put("c/1", "bad")
    await updater.reload()
    assert [state.name for state in folder.states()] == ["a", "b", "c"]
    for name in "bc":
        shutil.rmtree(tmp_path / name)
    await updater.reload()
    assert [(state.name, state.reason) for state in folder.states()] == [("a", ""), ("b", "its folder is gone")]
    await updater.reload()
    assert [state.name for state in folder.states()] == ["a"]


async def test_a_reload_follows_the_folder_but_never_loses_the_default(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a/1", "b/1")
    updater = await folder.start()
    folder.put("a/2")
    folder.put("b/3", "bad")
    folder.put("c/1")
    await updater.reload()
    assert folder.serving() == ["a:2", "b:1", "c:1"]
    assert folder.counts == ["loaded", "refused", "loaded"]
    shutil.rmtree(tmp_path / "a")
    shutil.rmtree(tmp_path / "b")
    await updater.reload()
    assert folder.serving() == ["a:2", "c:1"]


async def test_what_was_unloaded_by_name_stays_out_until_it_is_loaded_by_name(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a/1", "b/1")
    updater = await folder.start()
    assert [state.reason for state in await updater.change("unload", "b")] == ["unloaded"]
    await updater.reload()
    assert folder.serving() == ["a:1"]
    assert [state.state for state in await updater.change("load", "b")] == ["READY"]
    assert folder.serving() == ["a:1", "b:1"]
    for name in ("c", "../a", "A", ""):
        with pytest.raises(NotFound):
            await updater.change("load", name)


async def test_a_file_that_is_good_again_has_no_reason_left(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a/1")
    updater = await folder.start()
    folder.put("a/1", "bad")
    await updater.reload()
    assert "it is bad" in folder.states()[0].reason
    folder.put("a/1", "good")
    await updater.reload()
    assert (folder.states()[0].state, folder.states()[0].reason) == ("READY", "")


async def test_all_workers_use_the_batch_size_that_the_first_one_measured(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a/1")
    loaded = [replace(file, sha256="good", has_card=True) for file in folder.rollout.serving_set.files]
    agreed: list[int | None] = []
    for measured in (32, 4, 1):
        await folder.load(tuple(replace(file, max_batch=measured) for file in loaded))
        agreed += [file.max_batch for file in folder.rollout.serving_set.files]
    assert agreed == [32, 32, 32]
    await folder.updater.reload()
    assert [file.max_batch for file in folder.rollout.serving_set.files] == [32]


async def test_what_was_refused_at_the_start_is_said_and_counted_as_during_a_reload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a" / "2" / "model.onnx").mkdir(parents=True)
    folder = Folder(tmp_path, "a/1")
    assert folder.counts == ["refused"]
    assert "a:2 was refused: it is not a file." in caplog.text
    await folder.start()
    assert folder.serving() == ["a:1"]
    assert [(state.version, state.state) for state in folder.states()] == [("1", "READY"), ("2", "UNAVAILABLE")]
