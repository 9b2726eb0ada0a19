"""The layouts that people have: archives unpacked into folders of their own, and parts under all usual names."""

import tarfile
from pathlib import Path

import pytest

from tests.support.image_files.image_trees import as_tar, classes_in, write_images
from training.data.crops import CropSpec
from training.data.dataset import load
from training.data_files.listing import DataError
from training.data_files.part_names import purpose_of
from training.data_files.parts import Folders, find_folders, part_to_measure

STRAYS = ["README.md", "labels.txt", "__MACOSX/._train", "preview.png", "LICENSE"]


def parts(folders: Folders, data: Path) -> list[str | None]:
    every = (folders.training, folders.validation, folders.test)
    return [str(path.relative_to(data)) if path else None for path in every]


def given(folder: Path, is_tar: bool) -> Path:
    return as_tar(folder) if is_tar else folder


@pytest.mark.parametrize("is_tar", [False, True])
@pytest.mark.parametrize(
    ("names", "wrappers", "found"),
    [
        (("train", "val"), "", ["train", "val", None]),
        (("train", "val"), "my_dataset/", ["my_dataset/train", "my_dataset/val", None]),
        (("Training", "Validation", "Testing"), "a/b/c/", ["a/b/c/Training", "a/b/c/Validation", "a/b/c/Testing"]),
        (("training_set", "test_set"), "archive/", ["archive/training_set", None, "archive/test_set"]),
        (("trn", "dev"), "", ["trn", "dev", None]),
        (("TRAIN", "valid", "tst"), "", ["TRAIN", "valid", "tst"]),
        (("train-images", "val-images"), "", ["train-images", "val-images", None]),
        (("seg_train", "seg_test"), "", ["seg_train", None, "seg_test"]),
        (("train2017", "val2017"), "x/", ["x/train2017", "x/val2017", None]),
    ],
)
def test_parts_are_found_however_deep_they_are_wrapped(
    tmp_path: Path, names: tuple[str, ...], wrappers: str, found: list[str | None], is_tar: bool
) -> None:
    strays = STRAYS + [f"{wrappers}{stray}" for stray in STRAYS]
    paths = classes_in(*(f"{wrappers}{name}" for name in names))
    data = given(write_images(tmp_path / "data", paths + strays), is_tar)
    folders = find_folders(data)
    assert parts(folders, data) == found
    assert load(folders.training, CropSpec(8)).classes == ("cat", "dog")


@pytest.mark.parametrize("is_tar", [False, True])
def test_parts_may_be_wrapped_in_folders_of_their_own_names(tmp_path: Path, is_tar: bool) -> None:
    paths = classes_in("archive/training_set/training_set", "archive/test_set/test_set")
    data = given(write_images(tmp_path / "data", [*paths, *STRAYS]), is_tar)
    folders = find_folders(data)
    for part in (folders.training, folders.test):
        assert part is not None
        dataset = load(part, CropSpec(8))
        assert dataset.classes == ("cat", "dog") and len(dataset) == 4 and dataset.name == "archive"


@pytest.mark.parametrize("is_tar", [False, True])
def test_classes_are_found_however_deep_they_are_wrapped(tmp_path: Path, is_tar: bool) -> None:
    data = given(write_images(tmp_path / "data", [*classes_in("one/two/three"), "one/README", "one/two/a.csv"]), is_tar)
    dataset = load(find_folders(data).training, CropSpec(8), max_skipped=0.5)
    assert dataset.classes == ("cat", "dog") and len(dataset) == 4
    assert {reason for _, reason in dataset.skipped} == {"lies in no class folder"}


def test_a_compressed_tar_with_parts_is_taken(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data", classes_in("set/train", "set/val"))
    with tarfile.open(tmp_path / "data.tar.gz", "w:gz") as file:
        file.add(folder, arcname="data")
    folders = find_folders(tmp_path / "data.tar.gz")
    assert folders.validation == tmp_path / "data.tar.gz" / "data" / "set" / "val"
    assert len(load(folders.validation, CropSpec(8))) == 4


@pytest.mark.parametrize("name", ["train", "Train", "TRAINING", "training_set", "trainset", "trn", "train-images"])
def test_usual_names_of_the_training_part(name: str) -> None:
    assert purpose_of(name) == "training"


@pytest.mark.parametrize("name", ["val", "VALID", "validation", "dev", "valset", "Validation Set", "val_images"])
def test_usual_names_of_the_validation_part(name: str) -> None:
    assert purpose_of(name) == "validation"


@pytest.mark.parametrize("name", ["test", "Testing", "test_set", "testset", "test1", "tst"])
def test_usual_names_of_the_test_part(name: str) -> None:
    assert purpose_of(name) == "test"


@pytest.mark.parametrize(
    "name", ["cat", "trainer", "contest", "device", "steam train", "図書館", "set", "validator", ""]
)
def test_names_of_classes_are_no_parts(name: str) -> None:
    assert purpose_of(name) is None


@pytest.mark.parametrize("is_tar", [False, True])
@pytest.mark.parametrize("unlabelled", ["test/1.png", "test/unknown/1.png", "test/test/1.png", "test/a/b/1.png"])
def test_a_test_part_without_labels_is_left_aside_and_said(tmp_path: Path, unlabelled: str, is_tar: bool) -> None:
    data = given(write_images(tmp_path / "data", [*classes_in("train", "val"), unlabelled, "sample.csv"]), is_tar)
    folders = find_folders(data)
    assert parts(folders, data) == ["train", "val", None]
    (note,) = folders.notes
    assert f"{data / 'test'} is left aside" in note


def test_a_part_without_labels_beside_images_to_train_on_is_no_class(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", [*classes_in("train"), "test/1.png", "test/2.png"])
    assert parts(find_folders(data), data) == ["train", None, None]


def test_a_part_may_have_a_single_class_of_those_trained_on(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", [*classes_in("train"), "val/dog/1.png"])
    folders = find_folders(data)
    assert parts(folders, data) == ["train", "val", None]
    assert folders.validation and load(folders.validation, CropSpec(8), least_classes=1).classes == ("dog",)


def test_what_lies_beside_the_parts_is_left_aside_and_said(tmp_path: Path) -> None:
    paths = [*classes_in("train", "val", "copy/train"), "annotations/1.xml"]
    data = write_images(tmp_path / "data", paths)
    (data / "test").mkdir()
    folders = find_folders(data)
    assert parts(folders, data) == ["train", "val", None]
    assert folders.notes == ("left aside, being empty or no part: annotations, copy, test",)


def test_a_part_to_train_on_beside_the_same_classes_or_annotations_is_a_part(tmp_path: Path) -> None:
    for other in (classes_in("extra"), ["annotations/1.xml"], ["unlabeled/1.png"], classes_in("more")):
        data = write_images(tmp_path / other[0].split("/", 1)[0], [*classes_in("train"), *other])
        assert parts(find_folders(data), data) == ["train", None, None]


@pytest.mark.parametrize(
    "paths",
    [
        ["train/1.png", "car/1.png", "bus/1.png"],
        ["train/steam/1.png", "train/diesel/1.png", "car/1.png", "bus/1.png"],
        ["train/steam/1.png", "car/suv/1.png", "bus/1.png"],
    ],
)
def test_a_class_that_is_called_train_is_a_class(tmp_path: Path, paths: list[str]) -> None:
    data = write_images(tmp_path / "data", paths)
    assert find_folders(data).training == data
    assert load(data, CropSpec(8)).classes == ("bus", "car", "train")


@pytest.mark.parametrize("is_tar", [False, True])
def test_sub_folders_count_for_their_class_and_are_said(tmp_path: Path, is_tar: bool) -> None:
    paths = ["cat/1.png", "dog/old/1.png", "dog/young/1.png", "dog/young/small/1.png", "bird/1.png", "bird/x/1.png"]
    data = given(write_images(tmp_path / "data", paths), is_tar)
    (note,) = find_folders(data).notes
    assert note.startswith(
        "images in sub-folders count for the class folder above them: 'bird' (x), 'dog' (old, young)"
    )
    for reading in ("packed", "streamed"):
        dataset = load(data, CropSpec(8), reading=reading)  # type: ignore[arg-type]
        assert dataset.labels.tolist() == [0, 0, 1, 2, 2, 2]


def test_the_part_to_measure_is_the_labelled_one_for_testing(tmp_path: Path) -> None:
    said: list[str] = []
    data = write_images(tmp_path / "data", classes_in("set/train", "set/val", "set/test"))
    assert part_to_measure(data, said.append) == data / "set" / "test"
    data = write_images(tmp_path / "other", [*classes_in("train", "val"), "test/1.png"])
    assert part_to_measure(data, said.append) == data / "val"
    assert said == [f"{tmp_path / 'data'} is split; evaluating on test", f"{data} is split; evaluating on val"]
    data = write_images(tmp_path / "plain", classes_in("."))
    assert part_to_measure(data, said.append) == data


def test_images_that_lie_directly_in_the_parts_are_told_where_to_go(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", ["train/cat.1.png", "train/dog.1.png", "test1/1.png", "sample.csv"])
    with pytest.raises(DataError, match=r"the images of .*data/train lie in no class folders; put those of each"):
        find_folders(data)
