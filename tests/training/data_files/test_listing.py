"""Links, loops, and what systems leave behind, in folders and in tars."""

import os
from pathlib import Path

import pytest

from tests.support.image_files.image_trees import as_tar, classes_in, image_bytes, write_images
from training.data.crops import CropSpec
from training.data.dataset import load
from training.data_files.class_folders import find_classes
from training.data_files.listing import DataError
from training.data_files.sources import listed

LEFT_BEHIND = [
    "$RECYCLE.BIN",
    "$Recycle.Bin",
    "System Volume Information",
    "FOUND.000",
    "@eaDir",
    "#recycle",
    "#snapshot",
    "@Recycle",
    "~snapshot",
    ".Trashes",
    ".Trash-1000",
    ".Spotlight-V100",
    ".fseventsd",
    ".AppleDouble",
    "__MACOSX",
    "lost+found",
    ".ipynb_checkpoints",
    ".git",
    ".dvc",
    ".cache",
    "__pycache__",
]


def counts(source: Path) -> dict[str, int]:
    with listed(source) as listing:
        return {name: len(files) for name, files in find_classes(listing, source).items()}


@pytest.mark.parametrize("name", LEFT_BEHIND)
@pytest.mark.parametrize("is_tar", [False, True])
def test_what_systems_leave_behind_is_no_class_and_no_part_of_one(tmp_path: Path, name: str, is_tar: bool) -> None:
    left = [f"{name}/S-1-5/old.png", f"cat/{name}/0.png/thumbnail.png", f"cat/{name}/x.png"]
    folder = write_images(tmp_path / "data", [*classes_in("."), *left])
    assert counts(as_tar(folder) if is_tar else folder) == {"cat": 2, "dog": 2}


def test_an_unreadable_folder_of_the_system_is_not_looked_into(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data", classes_in("."))
    (folder / "lost+found").mkdir(mode=0)
    assert counts(folder) == {"cat": 2, "dog": 2}


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    return write_images(tmp_path / "elsewhere", classes_in(".", names=("cats", "dogs")))


def test_links_to_class_folders_are_followed(tmp_path: Path, elsewhere: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(elsewhere / "cats")
    (tmp_path / "data" / "dog").symlink_to("../elsewhere/dogs")
    assert counts(tmp_path / "data") == {"cat": 2, "dog": 2}
    for reading in ("packed", "streamed"):
        dataset = load(tmp_path / "data", CropSpec(8), reading=reading)  # type: ignore[arg-type]
        assert dataset.classes == ("cat", "dog") and len(dataset) == 4


def test_a_changed_image_behind_a_link_is_noticed(tmp_path: Path, elsewhere: Path) -> None:
    write_images(tmp_path / "data", classes_in(".", names=("bird",)))
    (tmp_path / "data" / "cat").symlink_to(elsewhere / "cats")
    before = load(tmp_path / "data", CropSpec(8)).fingerprint
    (elsewhere / "cats" / "0.png").write_bytes(image_bytes("another one"))
    assert load(tmp_path / "data", CropSpec(8)).fingerprint != before


def test_links_within_classes_and_to_links_are_followed(tmp_path: Path, elsewhere: Path) -> None:
    folder = write_images(tmp_path / "data", classes_in("."))
    (tmp_path / "step").symlink_to(elsewhere / "cats")
    (folder / "cat" / "more").symlink_to(tmp_path / "step")
    (folder / "dog" / "one.png").symlink_to(elsewhere / "dogs" / "0.png")
    assert counts(folder) == {"cat": 4, "dog": 3}


@pytest.mark.parametrize("target", [".", "..", "../..", "itself"])
def test_a_link_back_to_a_folder_around_it_ends_there_and_is_listed(tmp_path: Path, target: str) -> None:
    folder = write_images(tmp_path / "data", classes_in("."))
    (folder / "cat" / "itself").symlink_to(target)
    if target == "../..":  # whose folder `data` is around the link, too
        assert counts(folder)["dog"] == 2
        return
    dataset = load(folder, CropSpec(8))
    assert len(dataset) == 4 and dataset.skipped == (("cat/itself", "cannot be read"),)


def test_folders_that_link_to_each_other_come_to_an_end(tmp_path: Path) -> None:
    names = [f"class{index}" for index in range(9)]
    folder = write_images(tmp_path / "data", classes_in(".", names=names, each=1))
    for name in names:
        for other in names:
            if other != name:
                (folder / name / f"to_{other}").symlink_to(Path("..") / other)
    found = counts(folder)
    assert found.keys() == set(names) and max(found.values()) < 20_000


def test_a_dead_link_to_a_class_is_reported_as_that(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data", classes_in("."))
    (folder / "bird").symlink_to(tmp_path / "nowhere")
    assert load(folder, CropSpec(8)).skipped == (("bird", "is a link to nothing"),)
    (tmp_path / "links").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "links" / name).symlink_to(tmp_path / "nowhere" / name)
    with pytest.raises(DataError, match=r"links/cat is a link to nothing; put the folder itself there") as caught:
        load(tmp_path / "links", CropSpec(8))
    assert "\n" not in str(caught.value)


def test_links_in_a_tar_are_followed_within_it(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "data", [*classes_in("all", names=("cats", "dogs")), *classes_in("train")])
    (folder / "train" / "bird").symlink_to("../all/cats")
    (folder / "train" / "cat" / "soft.png").symlink_to("../../all/cats/1.png")
    os.link(folder / "all" / "dogs" / "1.png", folder / "train" / "dog" / "hard.png")
    (folder / "train" / "dog" / "gone.png").symlink_to("/nowhere/1.png")
    (folder / "train" / "cat" / "loop").symlink_to("..")
    tar = as_tar(folder)
    assert counts(tar / "train") == {"bird": 2, "cat": 4, "dog": 4}
    for reading in ("packed", "streamed"):
        dataset = load(tar / "train", CropSpec(8), max_skipped=0.5, reading=reading)  # type: ignore[arg-type]
        assert [file for file, _ in dataset.skipped] == ["cat/loop", "dog/gone.png"] and len(dataset) == 8
        assert dataset.digests[0] == load(tar / "all", CropSpec(8), reading=reading).digests[0]  # type: ignore[arg-type]


def test_a_folder_that_is_not_in_a_tar_is_named(tmp_path: Path) -> None:
    tar = as_tar(write_images(tmp_path / "data", classes_in("train")))
    with pytest.raises(DataError, match=r"there is no folder val in .*data\.tar; give --data .*data\.tar alone"):
        load(tar / "val", CropSpec(8))
