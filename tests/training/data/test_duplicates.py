"""The same image twice: in two parts, and under two classes; counted by bytes that are read anyway."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.image_files.image_trees import as_tar, classes_in, write_images
from training.data.crops import CropSpec
from training.data.dataset import load
from training.data.duplicates import duplicates_in
from training.data.splits import Part, hold_out_share, whole, with_classes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_images(tmp_path / "data", classes_in("train", "val", "test", each=3))


def copy(data: Path, source: str, *targets: str) -> None:
    for target in targets:
        (data / target).write_bytes((data / source).read_bytes())


def parts_of(data: Path, reading: Any = "packed") -> list[Part]:
    return [whole(name, load(data / name, CropSpec(8), reading=reading)) for name in ("train", "val", "test")]


@pytest.mark.parametrize("reading", ["packed", "streamed"])
@pytest.mark.parametrize("is_tar", [False, True])
def test_copies_across_parts_and_classes_are_counted(data: Path, reading: str, is_tar: bool) -> None:
    copy(data, "train/cat/0.png", "val/cat/0.png", "val/cat/1.png", "test/dog/2.png")
    copy(data, "train/cat/1.png", "train/cat/2.png")  # within a class of one part: harmless
    copy(data, "val/cat/2.png", "test/cat/0.png")  # neither is trained on
    data = as_tar(data) if is_tar else data
    found = duplicates_in(parts_of(data, reading), data)
    assert found.facts() == {
        "also_trained_on": {"val": 2, "test": 1},
        "under_two_classes": 1,
        "examples": {
            "val": ("val/cat/0.png", "train/cat/0.png"),
            "test": ("test/dog/2.png", "train/cat/0.png"),
            "classes": ("train/cat/0.png", "test/dog/2.png"),
        },
    }
    assert found.lines() == [
        "held-out images that are also trained on: 2, for example val/cat/0.png and train/cat/0.png; remove them from "
        "one of the two parts, or the held-out error looks better than it is",
        "test images that are also trained on: 1, for example test/dog/2.png and train/cat/0.png; remove them from one "
        "of the two parts, or the test error looks better than it is",
        "images that lie under two classes: 1, for example train/cat/0.png and test/dog/2.png; keep each in the class "
        "that it shows",
    ]


def test_what_is_said_is_gone_when_it_is_followed(data: Path) -> None:
    copy(data, "train/cat/0.png", "val/cat/0.png", "train/dog/1.png")
    found = duplicates_in(parts_of(data), data)
    for file, _ in found.examples.values():
        (data / file).unlink()
    assert duplicates_in(parts_of(data), data).lines() == []


def test_images_held_out_of_the_same_folder_are_compared_too(data: Path) -> None:
    for index in range(3, 9):
        copy(data, "train/cat/0.png", f"train/cat/{index}.png")
    dataset = load(data / "train", CropSpec(8))
    held_out = hold_out_share(dataset.labels, 0.3, seed=0)
    kept = np.setdiff1d(np.arange(len(dataset)), held_out)
    found = duplicates_in([Part("train", dataset, kept), Part("val", dataset, held_out)], data)
    expected = sum(dataset.digests[index] == dataset.digests[0] for index in held_out)
    assert 1 <= found.trained_on["val"] == expected
    assert found.under_two_classes == 0


def test_labels_are_compared_by_name_where_a_part_lacks_classes(data: Path) -> None:
    copy(data, "train/dog/0.png", "val/dog/0.png")
    for file in (data / "val" / "cat").iterdir():
        file.unlink()
    (data / "val" / "cat").rmdir()
    train = load(data / "train", CropSpec(8))
    val = with_classes(load(data / "val", CropSpec(8), least_classes=1), train.classes)
    found = duplicates_in([whole("train", train), whole("val", val)], data)
    assert (found.trained_on, found.under_two_classes) == ({"val": 1}, 0)


def test_files_that_cannot_be_decoded_do_not_shift_the_others(data: Path) -> None:
    (data / "train" / "cat" / "1.png").write_bytes(b"broken")
    copy(data, "train/dog/2.png", "test/dog/0.png")
    for reading in ("packed", "streamed"):
        parts = [
            whole(name, load(data / name, CropSpec(8), max_skipped=0.5, reading=reading))  # type: ignore[arg-type]
            for name in ("train", "test")
        ]
        assert len(parts[0].digests) == 5
        found = duplicates_in(parts, data)
        assert found.examples == {"test": ("test/dog/0.png", "train/dog/2.png")}


def test_each_file_is_read_once_while_packing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or original(path))  # type: ignore[func-returns-value]
    load(data / "train", CropSpec(8), reading="packed")
    images = [path for path in read if path.suffix == ".png"]
    assert len(images) == len(set(images)) == 6


def test_nothing_twice_is_nothing_said(data: Path) -> None:
    found = duplicates_in(parts_of(data), data)
    assert found.lines() == [] and json.loads(json.dumps(found.facts())) == {
        "also_trained_on": {"val": 0, "test": 0},
        "under_two_classes": 0,
    }


def test_a_million_images_are_compared_in_little_memory(data: Path) -> None:
    dataset = load(data / "train", CropSpec(8))
    count = 1_000_000
    numbers = np.random.default_rng(0).permutation(np.arange(count, dtype=np.uint64))
    numbers[:3] = numbers[-3:]  # of the first, which are trained on, three are held out too
    large = dataclasses.replace(dataset, digests=numbers, labels=np.zeros(count, np.int64))
    train = Part("train", large, np.arange(count // 2))
    val = Part("val", large, np.arange(count // 2, count))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("training.data.duplicates.path_of", lambda part, place, data: f"{part.name}{place}")
        found = duplicates_in([train, val], data)
    assert found.trained_on == {"val": 3} and found.examples["val"] == ("val499997", "train0")
    assert large.digests.nbytes == 8 * count
