import tarfile
from pathlib import Path

import pytest

from training.data_files.class_folders import find_classes
from training.data_files.listing import DataError
from training.data_files.sources import existing, listed


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_a_tar_that_is_cut_off_is_refused_in_one_line(images: Path, tmp_path: Path, mode: str) -> None:
    tar = tmp_path / "colours.tar"
    with tarfile.open(tar, mode) as file:  # type: ignore[call-overload]
        file.add(images, arcname="train")
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])
    with pytest.raises(DataError, match=r"neither a folder nor a readable tar file"), listed(tar):
        raise AssertionError("a damaged tar was listed")


def test_hidden_files_and_folders_that_wrap_everything_do_not_count(images: Path, tmp_path: Path) -> None:
    (tmp_path / "all" / "train").mkdir(parents=True)
    images.rename(tmp_path / "all" / "train" / "colours")
    (tmp_path / "all" / ".cache").mkdir()
    (tmp_path / "all" / ".cache" / "file").write_text("")
    with listed(tmp_path / "all") as listing:
        classes = find_classes(listing, tmp_path / "all")
        assert listing.read(classes["red"][0]).startswith(b"\x89PNG")
    assert {name: len(files) for name, files in classes.items()} == {"blue": 40, "green": 40, "red": 40}


def test_a_place_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder or tar file"):
        existing(tmp_path / "nothing")


def test_links_to_nowhere_and_back_to_a_folder_around_them_are_listed(images: Path, tmp_path: Path) -> None:
    (images / "red" / "gone.png").symlink_to(tmp_path / "nowhere")
    (images / "red" / "again").symlink_to(images)
    with listed(images) as listing:
        red = [path.name for path in listing.files if path.parent.name == "red"]
        assert len(red) == 42 and {"gone.png", "again"} <= set(red)
        assert sorted(path.name for path in listing.dead) == ["again", "gone.png"]
        assert listing.files == sorted(listing.files)


def test_a_file_is_at_its_place_in_a_folder_and_in_a_tar_but_nowhere_in_a_compressed_one(
    images: Path, tmp_path: Path
) -> None:
    for mode in ("w", "w:gz"):
        with tarfile.open(tmp_path / f"{mode[2:]}.tar", mode) as file:  # type: ignore[call-overload]
            file.add(images, arcname="train")
    for source in (images, tmp_path / ".tar"):
        with listed(source) as listing:
            place = listing.place(listing.files[7])
            assert place is not None and place.read() == listing.read(listing.files[7])
    with listed(tmp_path / "gz.tar") as listing:
        assert listing.place(listing.files[7]) is None
