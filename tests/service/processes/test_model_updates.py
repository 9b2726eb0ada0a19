"""The supervisor's decisions about what serves, without a process and without a model."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from service.errors import ModelRefused, NotFound
from service.model_files.repository import ModelFile, ModelRepositoryError, ServingSet, read_lineup
from service.processes.model_updates import ModelUpdater
from service.processes.model_validation import Repository

pytestmark = pytest.mark.anyio


class Folder:
    """The supervisor's part alone: no worker has to agree, and a file is good if it says so."""

    def __init__(self, root: Path, *files: str) -> None:
        self.root = root
        self.counts: list[str] = []
        for file in files:
            self.put(file)
        lineup = read_lineup(root, default_model="a")
        repository = Repository(root, 1, lineup, lambda *_: 0, 1.0)
        self.reloads = ModelUpdater(repository, examine=self.examine, workers=list, count=self.counts.append)

    def put(self, file: str, content: str = "good") -> Path:
        path = self.root / file / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    async def examine(self, file: ModelFile, _: frozenset[str]) -> ModelFile:
        content = file.path.read_text()
        if "good" not in content:
            raise ModelRepositoryError("it is bad")
        return replace(file, sha256=content, has_card="tensors" not in content)

    async def start(self) -> ModelUpdater:
        worker = StartedWorker(tuple(replace(file, sha256="good", has_card=True) for file in self.reloads.lineup.files))
        assert await self.reloads.bring_up_to_date(worker) is None  # type: ignore[arg-type]
        return self.reloads

    def serving(self) -> list[str]:
        return [f"{file.name}:{file.version}" for file in self.reloads.lineup.files]


class StartedWorker:
    def __init__(self, files: tuple[ModelFile, ...]) -> None:
        self.files = files

    async def take(self, _: ServingSet) -> None:
        return None


async def test_a_link_out_of_the_folder_is_refused_by_itself(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "models", "a/1", "b/1")
    reloads = await folder.start()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.onnx").write_text("good")
    (folder.root / "b" / "2").symlink_to(outside)
    (folder.root / "c").symlink_to(outside.parent)
    shutil.copytree(outside, tmp_path / "1")
    await reloads.reload()
    assert folder.serving() == ["a:1", "b:1"]
    states = {(state.name, state.version): state for state in reloads.lineup.states}
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
        await reloads.change("load", "b")


async def test_a_version_without_a_card_does_not_take_the_images_from_one_with(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a/1", "b/1")
    reloads = await folder.start()
    folder.put("b/2", "good tensors")
    with pytest.raises(ModelRefused, match="unload the model first"):
        await reloads.change("load", "b")
    assert folder.serving() == ["a:1", "b:1"]
    await reloads.change("unload", "b")
    await reloads.change("load", "b")
    assert folder.serving() == ["a:1", "b:2"]
    folder.put("b/3")
    await reloads.change("load", "b")  # the other way round is a gain
    assert folder.serving() == ["a:1", "b:3"]


async def test_nothing_is_said_of_what_has_no_folder_any_more(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a/1", "b/1")
    reloads = await folder.start()
    folder.put("c/1", "bad")
    await reloads.reload()
    assert [state.name for state in reloads.lineup.states] == ["a", "b", "c"]
    for name in "bc":
        shutil.rmtree(tmp_path / name)
    await reloads.reload()
    assert [(state.name, state.reason) for state in reloads.lineup.states] == [("a", ""), ("b", "its folder is gone")]
    await reloads.reload()
    assert [state.name for state in reloads.lineup.states] == ["a"]


async def test_a_reload_follows_the_folder_but_never_loses_the_default(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a/1", "b/1")
    reloads = await folder.start()
    folder.put("a/2")
    folder.put("b/3", "bad")
    folder.put("c/1")
    await reloads.reload()
    assert folder.serving() == ["a:2", "b:1", "c:1"]
    assert folder.counts == ["loaded", "refused", "loaded"]
    shutil.rmtree(tmp_path / "a")
    shutil.rmtree(tmp_path / "b")
    await reloads.reload()
    assert folder.serving() == ["a:2", "c:1"]


async def test_what_was_unloaded_by_name_stays_out_until_it_is_loaded_by_name(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a/1", "b/1")
    reloads = await folder.start()
    assert [state.reason for state in await reloads.change("unload", "b")] == ["unloaded"]
    await reloads.reload()
    assert folder.serving() == ["a:1"]
    assert [state.state for state in await reloads.change("load", "b")] == ["READY"]
    assert folder.serving() == ["a:1", "b:1"]
    for name in ("c", "../a", "A", ""):
        with pytest.raises(NotFound):
            await reloads.change("load", name)


async def test_a_file_that_is_good_again_has_no_reason_left(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a/1")
    reloads = await folder.start()
    folder.put("a/1", "bad")
    await reloads.reload()
    assert "it is bad" in reloads.lineup.states[0].reason
    folder.put("a/1", "good")
    await reloads.reload()
    assert (reloads.lineup.states[0].state, reloads.lineup.states[0].reason) == ("READY", "")


async def test_all_processes_are_told_the_batch_size_that_the_first_one_measured(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "a/1")
    loaded = [replace(file, sha256="good", has_card=True) for file in folder.reloads.lineup.files]
    told: list[int | None] = []
    for measured in (32, 4, 1):
        worker = StartedWorker(tuple(replace(file, max_batch=measured) for file in loaded))
        assert await folder.reloads.bring_up_to_date(worker) is None  # type: ignore[arg-type]
        told += [file.max_batch for file in folder.reloads.lineup.files]
    assert told == [32, 32, 32]
    await folder.reloads.reload()
    assert [file.max_batch for file in folder.reloads.lineup.files] == [32]


async def test_what_was_refused_at_the_start_is_said_and_counted_as_during_a_reload(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a" / "2" / "model.onnx").mkdir(parents=True)
    folder = Folder(tmp_path, "a/1")
    assert folder.counts == ["refused"]
    assert "a:2 was refused: it is not a file." in caplog.text
    reloads = await folder.start()
    assert folder.serving() == ["a:1"]
    assert [(state.version, state.state) for state in reloads.lineup.states] == [("1", "READY"), ("2", "UNAVAILABLE")]
