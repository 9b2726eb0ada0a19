import errno
import json
from pathlib import Path

import pytest
import torch

from training.weights import checkpoint
from training.weights.checkpoint import CheckpointError, find_weights, load_latest, save

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3)}


def state(value: int) -> dict[str, object]:
    return {"momentum": torch.full((3,), float(value)), "count": value}


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 7, WEIGHTS, state(7))
    found = load_latest(tmp_path)
    assert found is not None and found.step == 7
    assert torch.equal(found.weights["fc.weight"], WEIGHTS["fc.weight"])
    assert torch.equal(found.state["momentum"], torch.full((3,), 7.0)) and found.state["count"] == 7
    assert (tmp_path / "checkpoints" / "latest").read_text() == "7\n"


def test_meta_holds_the_digests_of_both_files(tmp_path: Path) -> None:
    folder = save(tmp_path, 7, WEIGHTS, state(7))
    digests = json.loads((folder / "meta.json").read_text())["sha256"]
    assert digests == {name: checkpoint.sha256_of(folder / name) for name in ("weights.safetensors", "state.pt")}


def test_only_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        save(tmp_path, step, WEIGHTS, state(step))
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["10", "3", "latest"]


@pytest.mark.parametrize("damage", ["weights.safetensors", "state.pt", "meta.json"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    save(tmp_path, 1, WEIGHTS, state(1))
    newest = save(tmp_path, 2, WEIGHTS, state(2))
    content = (newest / damage).read_bytes()
    (newest / damage).write_bytes(content[: len(content) // 2])
    found = load_latest(tmp_path)
    assert found is not None and found.step == 1
    assert find_weights(tmp_path).parent.name == "1"


def test_a_run_whose_checkpoints_are_all_damaged_says_so(tmp_path: Path) -> None:
    (save(tmp_path, 1, WEIGHTS, state(1)) / "state.pt").unlink()
    with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
        load_latest(tmp_path)


def test_a_run_without_checkpoints_begins_at_the_beginning(tmp_path: Path) -> None:
    assert load_latest(tmp_path) is None


def test_a_checkpoint_is_never_missing_while_another_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1, WEIGHTS, state(1))
    rename, renamed = Path.rename, []

    def look_before(path: Path, target: Path) -> Path:
        renamed.append(path.name)
        found = load_latest(tmp_path)
        assert found is not None and found.state["count"] == 1
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", look_before)
    save(tmp_path, 1, WEIGHTS, state(2))
    assert renamed == ["1", ".1.partial"]
    found = load_latest(tmp_path)
    assert found is not None and found.state["count"] == 2
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["1", "latest"]


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".3.partial").mkdir(parents=True)
    save(tmp_path, 7, WEIGHTS, state(7))
    assert not list((tmp_path / "checkpoints").glob(".*"))


@pytest.mark.parametrize("failing", ["write_bytes", "mkdir", "rename"])
def test_a_full_disk_leaves_the_earlier_checkpoint_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    save(tmp_path, 1, WEIGHTS, state(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, failing, full)
        with pytest.raises(CheckpointError, match="No space left on device; the earlier ones are untouched: make room"):
            save(tmp_path, 2, WEIGHTS, state(2))
    found = load_latest(tmp_path)
    assert found is not None and found.step == 1
    assert not list((tmp_path / "checkpoints").glob(".*"))
    assert save(tmp_path, 2, WEIGHTS, state(2)).name == "2"


def test_weights_are_found_in_a_run_a_checkpoint_or_a_file(tmp_path: Path) -> None:
    folder = save(tmp_path, 5, WEIGHTS, state(5))
    expected = folder / "weights.safetensors"
    assert find_weights(tmp_path) == find_weights(folder) == find_weights(expected) == expected
    with pytest.raises(CheckpointError, match="holds no checkpoint; give a run folder"):
        find_weights(tmp_path / "elsewhere")


def test_a_file_that_is_not_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(CheckpointError, match="not a readable safetensors file"):
        checkpoint.read_weights(tmp_path / "weights.safetensors")
