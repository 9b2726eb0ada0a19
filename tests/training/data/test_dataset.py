import csv
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.images.preprocessing import installed_resizers
from tests.training.conftest import write_images
from training.data.crops import CropSpec
from training.data.dataset import DataError, load, reading_of, stratified_hold_out, write_skipped


def tar_of(folder: Path, target: Path, inside: str) -> Path:
    with tarfile.open(target, "w") as tar:
        tar.add(folder, arcname=inside)
    return target


def test_a_folder_and_a_tar_of_it_give_the_same_pixels_labels_and_classes(images: Path, tmp_path: Path) -> None:
    folder = load(images, CropSpec(32))
    tar = load(tar_of(images, tmp_path / "colours-train.tar", "train"), CropSpec(32))
    assert folder.classes == tar.classes == ("blue", "green", "red")
    assert folder.fingerprint == tar.fingerprint
    np.testing.assert_array_equal(folder.images, tar.images)
    np.testing.assert_array_equal(folder.labels, np.repeat([0, 1, 2], 40))
    assert tar.name == "colours"


def test_pixels_are_those_of_the_files(images: Path) -> None:
    dataset = load(images, CropSpec(32))
    first = np.asarray(Image.open(images / "blue" / "0.png"))
    np.testing.assert_array_equal(dataset.images[0], first)


def test_other_sizes_are_resized_on_the_shorter_side_and_cropped(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "large", each=2, side=50)
    assert load(folder, CropSpec(20)).images.shape == (6, 20, 20, 3)


@pytest.mark.skipif(len(installed_resizers()) == 1, reason="cykooz-resizer is not installed")
def test_each_resizer_has_packed_pixels_of_its_own(tmp_path: Path, private_cache: Path) -> None:
    folder = write_images(tmp_path / "large", each=2, side=75)
    by_simd, by_pillow = load(folder, CropSpec(32)), load(folder, CropSpec(32, resizer="pillow"))
    differences = np.abs(np.array(by_simd.images, int) - np.array(by_pillow.images, int))
    assert differences.max() == 1 and by_simd.fingerprint != by_pillow.fingerprint
    first = np.asarray(Image.open(folder / "blue" / "0.png").resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(by_pillow.images[0], first)
    endings = {path.parent.name.partition("-")[2] for path in private_cache.rglob("images.u8")}
    assert endings == {"32", "32-by-cykooz-resizer"}  # those of before there was a choice are Pillow's


def test_the_second_load_maps_what_the_first_packed_and_a_changed_file_packs_again(images: Path) -> None:
    lines: list[str] = []
    before = load(images, CropSpec(32), announce=lines.append)
    assert len(lines) == 1
    assert load(images, CropSpec(32), announce=lines.append).fingerprint == before.fingerprint
    assert len(lines) == 1
    Image.new("RGB", (32, 32), (1, 2, 3)).save(images / "red" / "0.png")
    assert load(images, CropSpec(32), announce=lines.append).fingerprint != before.fingerprint
    assert len(lines) == 2


def test_the_data_itself_is_never_written_to(images: Path, private_cache: Path) -> None:
    before = sorted(images.rglob("*"))
    load(images, CropSpec(32))
    assert sorted(images.rglob("*")) == before
    assert list(private_cache.rglob("images.u8"))


def test_undecodable_files_are_skipped_counted_and_listed_with_reasons(images: Path, tmp_path: Path) -> None:
    (images / "red" / "notes.txt").write_text("not an image")
    (images / "blue" / "1.png").write_bytes((images / "blue" / "1.png").read_bytes()[:200])
    (images / "red" / ".hidden").write_text("ignored")
    dataset = load(images, CropSpec(32))
    assert len(dataset) == 119
    assert [file for file, _ in dataset.skipped] == ["blue/1.png", "red/notes.txt"]
    write_skipped(dataset.skipped, tmp_path / "skipped.csv")
    with (tmp_path / "skipped.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["file", "reason"] and "PNG" in rows[1][1] and "JPEG, PNG and WebP" in rows[2][1]


def test_too_many_undecodable_files_are_refused_unless_allowed(images: Path) -> None:
    for index in range(20):
        (images / "red" / f"broken{index}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"20 of 140 files cannot be used, more than --max-skipped 0.1"):
        load(images, CropSpec(32), max_skipped=0.1)
    assert len(load(images, CropSpec(32), max_skipped=0.2)) == 120
    with pytest.raises(DataError, match="max-skipped"):  # also when the images are packed already
        load(images, CropSpec(32), max_skipped=0.1)


def test_what_cannot_be_read_or_lies_outside_the_classes_is_listed(images: Path) -> None:
    (images / "red" / "link.png").symlink_to(images / "nowhere.png")
    Image.new("RGB", (32, 32)).save(images / "stray.png")
    dataset = load(images, CropSpec(32))
    assert dataset.skipped == (("stray.png", "lies in no class folder"), ("red/link.png", "cannot be read"))
    assert len(dataset) == 120


def test_a_class_that_loses_every_image_is_refused(images: Path) -> None:
    for path in (images / "green").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="no image of class 'green' can be decoded; the first is green/"):
        load(images, CropSpec(32), max_skipped=1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shutil.rmtree, "there is no folder or tar file"),
        (lambda root: [shutil.rmtree(path) for path in root.iterdir()], "holds no files"),
        (lambda root: (root / "empty").mkdir(), "class folder 'empty' .* is empty"),
        (lambda root: [shutil.rmtree(root / name) for name in ("blue", "green")], "only one class folder"),
    ],
)
def test_a_layout_that_cannot_be_used_gets_one_clear_line(images: Path, change: object, words: str) -> None:
    change(images)  # type: ignore[operator]
    with pytest.raises(DataError, match=words) as caught:
        load(images, CropSpec(32))
    assert "\n" not in str(caught.value)


def test_images_without_class_folders_are_told_where_to_go(tmp_path: Path, images: Path) -> None:
    with pytest.raises(DataError, match="lie directly in"):
        load(images / "red", CropSpec(32))


def test_a_folder_of_train_and_test_is_told_which_of_them_to_give(tmp_path: Path) -> None:
    write_images(tmp_path / "both" / "train", each=2)
    write_images(tmp_path / "both" / "test", each=2)
    with pytest.raises(DataError, match=r"wrong nesting .*--data .*/train --test-data .*/test"):
        load(tmp_path / "both", CropSpec(32))


def test_a_file_that_is_no_tar_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.tar").write_bytes(b"zip?" * 300)
    with pytest.raises(DataError, match="neither a folder nor a readable tar"):
        load(tmp_path / "data.tar", CropSpec(32))


def test_a_cache_that_cannot_be_written_names_the_way_out(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    with pytest.raises(DataError, match="XDG_CACHE_HOME"):
        load(images, CropSpec(32))


def test_held_out_images_are_stratified_seeded_and_exact_in_number() -> None:
    labels = np.repeat(np.arange(4), [400, 300, 200, 100]).astype(np.int64)
    held_out = stratified_hold_out(labels, 100, seed=3)
    assert np.bincount(labels[held_out]).tolist() == [40, 30, 20, 10]
    assert len(np.unique(held_out)) == 100 and (np.diff(held_out) > 0).all()
    np.testing.assert_array_equal(held_out, stratified_hold_out(labels, 100, seed=3))
    assert not np.array_equal(held_out, stratified_hold_out(labels, 100, seed=4))
    assert len(stratified_hold_out(labels, 0, seed=3)) == 0


def test_what_is_too_big_to_pack_is_streamed_and_says_why(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    monkeypatch.setattr("training.data.memory_budget.free_memory", lambda: 100_000)
    dataset = load(images, CropSpec(32), announce=lines.append)
    assert dataset.reading == "streamed" and "packed they would take" in lines[0]
    monkeypatch.undo()
    assert load(images, CropSpec(32)).reading == "packed"


def test_streamed_images_are_the_packed_ones_with_the_same_labels_and_skipped_files(
    images: Path, tmp_path: Path, private_cache: Path
) -> None:
    (images / "red" / "notes.txt").write_text("not an image")
    (images / "blue" / "1.png").write_bytes((images / "blue" / "1.png").read_bytes()[:200])
    tar = tar_of(images, tmp_path / "colours.tar", "train")
    packed = load(images, CropSpec(24, shorter_side=28), reading="packed")
    for source in (images, tar):
        streamed = load(source, CropSpec(24, shorter_side=28), reading="streamed")
        np.testing.assert_array_equal(streamed.images[:], packed.images)
        np.testing.assert_array_equal(streamed.labels, packed.labels)
        assert [reason for _, reason in streamed.skipped] == [reason for _, reason in packed.skipped]
        assert len(streamed.places()) == len(streamed) == 119


def test_a_tree_is_looked_through_once_whatever_the_size_of_its_images(images: Path) -> None:
    lines: list[str] = []
    first = load(images, CropSpec(32), reading="streamed", announce=lines.append)
    second = load(images, CropSpec(16), reading="streamed", announce=lines.append)
    assert len(lines) == 1 and "looking through 120 files" in lines[0]
    assert first.fingerprint == second.fingerprint and reading_of(first.fingerprint) == "streamed"
    assert second.images.shape == (120, 16, 16, 3)


def test_streamed_sets_hold_to_the_share_that_may_be_skipped(images: Path) -> None:
    for index in range(20):
        (images / "red" / f"broken{index}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"20 of 140 files cannot be used, more than --max-skipped 0.1"):
        load(images, CropSpec(32), max_skipped=0.1, reading="streamed")


def test_a_compressed_tar_cannot_be_streamed_and_the_error_names_the_fix(images: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "colours.tar.gz", "w:gz") as tar:
        tar.add(images, arcname="train")
    with pytest.raises(DataError, match=r"compressed tar.* unpack it"):
        load(tmp_path / "colours.tar.gz", CropSpec(32), reading="streamed")
    assert len(load(tmp_path / "colours.tar.gz", CropSpec(32), reading="packed")) == 120


def test_an_image_that_has_gone_since_it_was_looked_at_is_named(images: Path) -> None:
    dataset = load(images, CropSpec(32), reading="streamed")
    (images / "green" / "7.png").unlink()
    with pytest.raises(DataError, match=r"green/7\.png could be decoded before and no longer can"):
        dataset.images[:]
