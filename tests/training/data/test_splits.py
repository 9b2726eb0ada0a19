"""Splits, parts and balance of a folder of images."""

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest

from tests.training.conftest import write_images
from training.data.crops import CropSpec
from training.data.dataset import load
from training.data.splits import (
    Part,
    balance,
    hold_out_share,
    skipped_files,
    split_table,
    whole,
    with_classes,
)
from training.data_files.listing import DataError
from training.data_files.parts import find_folders


def labels_of(*counts: int) -> "np.typing.NDArray[np.int64]":
    return np.repeat(np.arange(len(counts)), counts).astype(np.int64)


def test_a_split_takes_the_share_of_each_class_and_at_least_one_of_those_with_two() -> None:
    labels = labels_of(30, 10, 3, 2, 1)
    held_out = hold_out_share(labels, 0.2, seed=1)
    assert np.bincount(labels[held_out], minlength=5).tolist() == [6, 2, 1, 1, 0]
    assert (np.diff(held_out) > 0).all()


def test_a_large_share_leaves_one_image_of_each_class_to_train_on() -> None:
    labels = labels_of(4, 2)
    assert np.bincount(labels[hold_out_share(labels, 1.0, seed=0)]).tolist() == [3, 1]


def test_the_seed_decides_on_the_split_and_nothing_else_does() -> None:
    labels = labels_of(20, 20)
    np.testing.assert_array_equal(hold_out_share(labels, 0.3, 5), hold_out_share(labels, 0.3, 5))
    assert not np.array_equal(hold_out_share(labels, 0.3, 5), hold_out_share(labels, 0.3, 6))


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (("train", "val"), ("train", "val", None)),
        (("Training", "Validation", "Test"), ("Training", "Validation", "Test")),
        (("train", "valid"), ("train", "valid", None)),
        (("train", "test"), ("train", None, "test")),
    ],
)
def test_folders_of_the_usual_names_are_parts(
    tmp_path: Path, names: tuple[str, ...], found: tuple[str | None, ...]
) -> None:
    for name in names:
        write_images(tmp_path / name, each=1)
    folders = find_folders(tmp_path)
    paths = (folders.training, folders.validation, folders.test)
    assert tuple(path.name if path else None for path in paths) == found


def test_a_class_that_is_called_train_is_a_class(tmp_path: Path) -> None:
    for name in ("train", "val", "red"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").touch()
    assert find_folders(tmp_path).training == tmp_path


def test_training_images_without_test_images_are_no_split(tmp_path: Path) -> None:
    write_images(tmp_path / "train", each=1)
    assert find_folders(tmp_path).training == tmp_path


def test_the_split_names_every_file_that_is_used_with_its_class_and_part(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", each=3)
    (data / "blue" / "0.png").write_bytes(b"broken")
    dataset = load(data, CropSpec(32), max_skipped=0.5)
    held_out = hold_out_share(dataset.labels, 0.2, 0)
    kept = np.setdiff1d(np.arange(len(dataset)), held_out)
    table = split_table([Part("train", dataset, kept), Part("val", dataset, held_out)], data)
    rows = list(csv.reader(io.StringIO(table.decode())))
    assert rows[0] == ["file", "label", "part"] and len(rows) == 9
    assert all((data / file).is_file() and Path(file).parent.name == label for file, label, _ in rows[1:])
    assert [part for *_, part in rows].count("val") == 3
    assert "blue/0.png" not in {row[0] for row in rows}


def test_names_of_files_may_be_any_bytes_and_those_of_classes_are_text(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", each=1)
    os.rename(data / "red" / "0.png", os.fsencode(data / "red") + b"/caf\xe9.png")
    table = split_table([whole("train", load(data, CropSpec(32)))], data)
    assert b"\nred/caf\xe9.png,red,train\n" in table
    os.rename(data / "red", os.fsencode(data) + b"/caf\xe9")
    with pytest.raises(DataError, match=r"class folder 'caf\\udce9' is not UTF-8; rename it"):
        load(data, CropSpec(32))


def test_parts_in_folders_of_their_own_are_named_by_their_paths_in_the_data(tmp_path: Path) -> None:
    parts = [whole(name, load(write_images(tmp_path / name, each=2), CropSpec(32))) for name in ("train", "val")]
    rows = list(csv.reader(io.StringIO(split_table(parts, tmp_path).decode())))
    assert rows[1] == ["train/blue/0.png", "blue", "train"] and rows[-1] == ["val/red/1.png", "red", "val"]
    (tmp_path / "val" / "red" / "0.png").write_bytes(b"broken")
    parts[1] = whole("val", load(tmp_path / "val", CropSpec(32)))
    assert [file for file, _ in skipped_files([*parts, parts[1]], tmp_path)] == ["val/red/0.png"]


def test_a_part_that_lacks_a_class_keeps_the_numbers_of_the_others(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", each=1)
    dataset = load(data, CropSpec(32))
    more = with_classes(dataset, ("beige", "blue", "green", "red"))
    assert more.labels.tolist() == [1, 2, 3] and more.classes[0] == "beige"
    with pytest.raises(DataError, match="classes without images to train on: 'green'"):
        with_classes(dataset, ("blue", "red"))


def test_uneven_classes_are_counted_and_reported_with_the_option_that_helps() -> None:
    counted = balance(("cat", "dog", "old goat"), labels_of(12, 6, 1), labels_of(3, 1))
    assert counted.facts() == {
        "classes": {
            "cat": {"train": 12, "held_out": 3},
            "dog": {"train": 6, "held_out": 1},
            "old goat": {"train": 1, "held_out": 0},
        },
        "largest_to_smallest": 12.0,
    }
    counts, uneven, absent = counted.lines(None)
    assert counts == "images to train on + held out: cat 12 + 3, dog 6 + 1, old goat 1 + 0"
    assert "'cat' has 12.0x as many training images as 'old goat'; use --set class_weights=balanced" in uneven
    assert absent.startswith("no image of 'old goat' is held out")
    assert "the loss weighs all classes equally" in counted.lines("balanced")[1]


def test_even_classes_are_one_line() -> None:
    assert len(balance(("a", "b"), labels_of(10, 9), labels_of(2, 2)).lines(None)) == 1
