import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.runs.run_records import record_of
from training.runs.record import RecordError, read_facts, read_record
from training.runs.shipped import RESULTS


def write(folder: Path, content: bytes) -> Path:
    (folder / "run.json").write_bytes(content)
    return folder


def written(folder: Path, **changes: Any) -> Path:
    return write(folder, json.dumps(record_of("resnet8", ["a", "b"]) | changes).encode())


def test_every_archived_run_has_a_readable_record() -> None:
    runs = [file.parent for file in RESULTS.glob("*/run.json")]
    assert runs
    for run in runs:
        record = read_record(run)
        assert record.architecture.network == record.network and record.recipe_name


def test_fields_that_older_runs_lack_have_defaults(tmp_path: Path) -> None:
    record = read_record(written(tmp_path))
    assert (record.resizer, record.held_out, record.finished, record.max_skipped) == ("pillow", (), None, 0.2)
    assert record.dataset.source == Path("../absent/things")


def test_the_share_of_skipped_files_is_the_recipes(tmp_path: Path) -> None:
    assert read_record(written(tmp_path, recipe={"name": "finetune", "max_skipped": 0.5})).max_skipped == 0.5


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"labels": ["only"]}, "labels"),
        ({"recipe": {}}, "recipe.name"),
        ({"preprocessing": {"shorter_side": 32}}, "preprocessing.crop"),
        ({"results": {"test": {"top1": None, "images": 1}}}, "results.test.top1"),
    ],
)
def test_a_damaged_record_is_refused_with_the_place(tmp_path: Path, changes: dict[str, Any], place: str) -> None:
    with pytest.raises(RecordError) as error:
        read_record(written(tmp_path, **changes))
    assert str(error.value) == f"{tmp_path / 'run.json'} is not what train-resnet run writes, at {place}"
    assert error.value.reason == f"run.json has no usable {place}"


def test_a_missing_record_and_one_of_an_unknown_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"there is no .*run\.json"):
        read_record(tmp_path)
    with pytest.raises(RecordError, match="no network is called 'vgg19'"):
        read_record(written(tmp_path, network="vgg19"))


def test_resuming_needs_what_decides_whether_runs_are_bit_equal(tmp_path: Path) -> None:
    needed: dict[str, Any] = {"held_out": [1], "hardware": {"device": "cpu"}, "versions": {"python": "3.11"}}
    with pytest.raises(RecordError, match="at versions"):
        read_facts(written(tmp_path, **{key: value for key, value in needed.items() if key != "versions"}))
    facts = read_facts(written(tmp_path, **needed, unknown_to_this_version=1))
    assert facts["versions"] == {"python": "3.11"} and facts["unknown_to_this_version"] == 1
