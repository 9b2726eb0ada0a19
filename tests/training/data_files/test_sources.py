"""What people bring: published archives, tables, Hugging Face folders, WebDataset shards and zips, all really read."""

import json
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.data_layouts import (
    CLASSES,
    bytes_of_tar,
    cifar10_binary_files,
    cifar10_files,
    cifar100_files,
    cifar_pixels,
    csv_of,
    images,
    in_class_folders,
    jsonl_of,
    python2_pickle,
    tar_of,
    write_files,
    zip_of,
)
from training.data.crops import CropSpec
from training.data.dataset import DataError, Dataset, load
from training.data.splits import used_files
from training.data_files.parts import find_folders, part_to_measure

Reading = Literal["packed", "streamed"]
READINGS: tuple[Reading, ...] = ("packed", "streamed")


def counts(dataset: Dataset) -> dict[str, int]:
    found = Counter(dataset.labels.tolist())
    return {name: found[label] for label, name in enumerate(dataset.classes)}


def read(source: Path, reading: Reading, crop: int = 8) -> Dataset:
    dataset = load(source, CropSpec(crop), reading=reading)
    assert dataset.skipped == () and dataset.images[:].any()
    assert len(used_files(dataset)) == len(dataset.places()) == len(dataset)
    return dataset


def check_parts(data: Path, train: int, test: int, name: str | None = None) -> None:
    """Check that data is split into a part to train on and one to test on, with these numbers of images a class."""
    folders = find_folders(data)
    assert folders.test is not None and part_to_measure(data, lambda _: None) == folders.test
    for part, each in ((folders.training, train), (folders.test, test)):
        for reading in READINGS:
            dataset = read(part, reading)
            assert counts(dataset) == dict.fromkeys(CLASSES, each)
            assert name in (None, dataset.name)


@pytest.mark.parametrize("is_tar", [True, False])
def test_the_original_cifar_10_is_read(tmp_path: Path, is_tar: bool) -> None:
    data = tar_of(tmp_path / "cifar-10-python.tar.gz", cifar10_files(), "w:gz")
    if not is_tar:
        data = write_files(tmp_path / "unpacked", cifar10_files()) / "cifar-10-batches-py"
    check_parts(data, train=10, test=2, name="cifar-10")
    test = load(find_folders(data).test or data, CropSpec(32))
    expected = cifar_pixels(6, seed=6).reshape(6, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(test.images[test.labels == 0], expected[[0, 3]])


@pytest.mark.parametrize("is_tar", [True, False])
def test_the_original_cifar_100_is_read_by_its_fine_labels(tmp_path: Path, is_tar: bool) -> None:
    data = tar_of(tmp_path / "cifar-100-python.tar.gz", cifar100_files(), "w:gz")
    if not is_tar:
        data = write_files(tmp_path / "unpacked", cifar100_files()) / "cifar-100-python"
    check_parts(data, train=2, test=2, name="cifar-100")


def test_the_binary_version_of_cifar_10_has_the_same_images(tmp_path: Path) -> None:
    data = tar_of(tmp_path / "cifar-10-binary.tar.gz", cifar10_binary_files(), "w:gz")
    check_parts(data, train=10, test=2, name="cifar-10")
    other = tar_of(tmp_path / "cifar-10-python.tar.gz", cifar10_files(), "w:gz")
    binary, python = (load(find_folders(path).training, CropSpec(32)) for path in (data, other))
    assert sorted(image.tobytes() for image in binary.images[:]) == sorted(
        image.tobytes() for image in python.images[:]
    )


def test_a_cifar_file_cannot_run_code(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "touched",))

    files = [(name, python2_pickle(Hostile()) if name.endswith("batch_2") else file) for name, file in cifar10_files()]
    with pytest.raises(DataError, match="a damaged copy of CIFAR; download it again"):
        find_folders(tar_of(tmp_path / "cifar-10-python.tar.gz", files, "w:gz"))
    assert not (tmp_path / "touched").exists()


def imagenet_tars(folder: Path) -> list[tuple[str, bytes]]:
    wordnet = dict(zip(CLASSES, ("n01440764", "n01443537", "n01484850"), strict=True))
    return [
        (f"{wordnet[name]}.tar", bytes_of_tar([(f"{wordnet[name]}_{i}.JPEG", row[2]) for i, row in rows], folder))
        for name in CLASSES
        for rows in [[(index, row) for index, row in enumerate(images()) if row[1] == name]]
    ]


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("is_tar", [True, False])
def test_imagenets_tar_of_a_tar_for_each_class_is_read(tmp_path: Path, is_tar: bool, reading: Reading) -> None:
    data = tar_of(tmp_path / "ILSVRC2012_img_train.tar", imagenet_tars(tmp_path))
    if not is_tar:
        data = write_files(tmp_path / "classes", imagenet_tars(tmp_path))
    assert counts(read(data, reading)) == {"n01440764": 2, "n01443537": 2, "n01484850": 2}


def test_tars_in_a_compressed_tar_are_refused_in_one_line(tmp_path: Path) -> None:
    data = tar_of(tmp_path / "train.tar.gz", imagenet_tars(tmp_path), "w:gz")
    with pytest.raises(DataError, match=r"n01440764\.tar is in a compressed archive; unpack that") as caught:
        load(data, CropSpec(8))
    assert "\n" not in str(caught.value)


def test_imagenets_validation_images_without_labels_are_refused_with_the_way_to_sort_them(tmp_path: Path) -> None:
    flat = [(f"ILSVRC2012_val_{index:08}.JPEG", row[2]) for index, row in enumerate(images())]
    with pytest.raises(DataError, match=r"ILSVRC2012_devkit_t12\.tar\.gz.*datasets\.ImageNet\('\.', 'val'\)") as caught:
        part_to_measure(tar_of(tmp_path / "ILSVRC2012_img_val.tar", flat), lambda _: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_class_folders_is_read(tmp_path: Path, compression: int) -> None:
    files = [(f"pets/{name}", content) for part in ("train/", "test/") for name, content in in_class_folders(part)]
    left = [("__MACOSX/pets/._train", b"x"), ("pets/.DS_Store", b"x")]
    check_parts(zip_of(tmp_path / "pets.zip", files + left, compression), train=2, test=2, name="pets")


def test_a_zip_without_parts_is_read(tmp_path: Path) -> None:
    data = zip_of(tmp_path / "animals.zip", in_class_folders())
    assert find_folders(data).training == data
    assert [counts(read(data, reading)) for reading in READINGS] == 2 * [dict.fromkeys(CLASSES, 2)]


def test_a_zip_of_another_compression_is_packed_and_not_streamed(tmp_path: Path) -> None:
    data = zip_of(tmp_path / "animals.zip", in_class_folders(), zipfile.ZIP_BZIP2)
    assert len(load(data, CropSpec(8), reading="packed")) == 6
    with pytest.raises(DataError, match=r"compressed .* which cannot be read from the middle"):
        load(data, CropSpec(8), reading="streamed")


def test_a_damaged_member_of_a_zip_is_skipped_with_its_reason(tmp_path: Path) -> None:
    data = zip_of(tmp_path / "animals.zip", in_class_folders(), zipfile.ZIP_STORED)
    content = data.read_bytes()
    place = content.index(b"IDAT") + 20
    data.write_bytes(content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :])
    dataset = load(data, CropSpec(8), reading="packed")
    assert len(dataset) == 5 and dataset.skipped == (("cat/cat0.png", "cannot be read"),)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    ("name", "file", "label"),
    [
        ("labels.csv", "file_name", "label"),
        ("train.csv", "Path", "Class"),
        ("labels.tsv", "filename", "category"),
        ("labels.jsonl", "image", "target"),
    ],
)
def test_a_table_of_paths_and_labels_is_read(
    tmp_path: Path, name: str, file: str, label: str, reading: Reading
) -> None:
    write_files(tmp_path / "photos", [(file, content) for file, _, content in images()])
    rows = [{"number": 1, file: f"photos/{path}", label: kind} for path, kind, _ in images()]
    table = tmp_path / name
    table.write_bytes(jsonl_of(rows) if name.endswith("l") else csv_of(rows, "\t" if name.endswith("tsv") else ","))
    assert counts(read(table, reading)) == dict.fromkeys(CLASSES, 2)


def test_a_table_may_have_a_column_of_parts(tmp_path: Path) -> None:
    parts = {"train": "train/", "test": "test/"}
    for folder in parts.values():
        write_files(tmp_path, [(name, content) for name, _, content in images(folder)])
    rows = [
        {"path": name, "label": label, "split": part}
        for part, folder in parts.items()
        for name, label, _ in images(folder)
    ]
    (tmp_path / "animals.csv").write_bytes(csv_of(rows))
    check_parts(tmp_path / "animals.csv", train=2, test=2, name="animals")


def test_a_changed_image_of_a_table_is_noticed(tmp_path: Path) -> None:
    write_files(tmp_path, [(name, content) for name, _, content in images()])
    table = tmp_path / "labels.csv"
    table.write_bytes(csv_of({"file": name, "label": label} for name, label, _ in images()))
    before = load(table, CropSpec(8)).fingerprint
    (tmp_path / "cat0.png").write_bytes(images("other")[0][2])
    assert load(table, CropSpec(8)).fingerprint != before


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"a,b\n1,2\n", r"has the columns 'a', 'b'; name one file_name"),
        (b"file_name,label\n", "has no rows"),
        (b"file_name,label\nx.png,cat\n", r"names 'x\.png', and none of its files is in"),
        (b"\xff\xfe\x00", "is no readable table in UTF-8"),
    ],
)
def test_an_unusable_table_is_refused_in_one_line(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(DataError, match=fault) as caught:
        load(tmp_path / "labels.csv", CropSpec(8))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("layout", ["one for each part", "one for all", "in a zip"])
@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_a_hugging_face_image_folder_is_read(tmp_path: Path, name: str, layout: str) -> None:
    files = [(path, content) for part in ("train/", "test/") for path, _, content in images(part)]
    rows = {
        part: [{"file_name": path, "label": kind} for path, kind, _ in images(part)] for part in ("train/", "test/")
    }
    as_table = csv_of if name.endswith("csv") else jsonl_of
    if layout == "one for all":
        files.append((name, as_table(rows["train/"] + rows["test/"])))
    for part, of_part in rows.items():
        if layout != "one for all":
            inner = [row | {"file_name": row["file_name"].removeprefix(part)} for row in of_part]
            files.append((part + name, as_table(inner)))
    data = zip_of(tmp_path / "pets.zip", files) if layout == "in a zip" else write_files(tmp_path / "pets", files)
    check_parts(data, train=2, test=2, name="pets")


def test_metadata_without_labels_leaves_class_folders_as_they_are(tmp_path: Path) -> None:
    rows = [{"file_name": path, "text": "a caption"} for path, _ in in_class_folders()]
    data = write_files(tmp_path / "pets", [*in_class_folders(), ("metadata.csv", csv_of(rows))])
    dataset = load(data, CropSpec(8))
    assert counts(dataset) == dict.fromkeys(CLASSES, 2)
    assert dataset.skipped == (("metadata.csv", "lies in no class folder"),)


def parquet_file(path: Path, part: str, *, is_plain: bool = False) -> Path:
    rows = images(part)
    encoded = [content if is_plain else {"bytes": content, "path": name} for name, _, content in rows]
    labels = [name if is_plain else CLASSES.index(name) for _, name, _ in rows]
    table = pa.table({"image_bytes" if is_plain else "img": encoded, "label": labels})
    if not is_plain:
        features = {"label": {"names": list(CLASSES), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def test_parquet_files_of_hugging_face_are_read_with_their_class_names(tmp_path: Path) -> None:
    for part in ("train", "test"):
        parquet_file(tmp_path / "pets" / "data" / f"{part}-00000-of-00001.parquet", part)
    check_parts(tmp_path / "pets", train=2, test=2)


@pytest.mark.parametrize("reading", READINGS)
def test_a_parquet_file_of_plain_columns_is_read(tmp_path: Path, reading: Reading) -> None:
    data = parquet_file(tmp_path / "animals.parquet", "", is_plain=True)
    dataset = read(data, reading)
    assert counts(dataset) == dict.fromkeys(CLASSES, 2) and dataset.name == "animals"


def test_parquet_without_images_or_without_pyarrow_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "text.parquet")
    with pytest.raises(DataError, match="has the columns 'text', 'label'; an image column needs the bytes"):
        load(tmp_path / "text.parquet", CropSpec(8))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="is no Parquet file that can be read"):
        load(tmp_path / "broken.parquet", CropSpec(8))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(DataError, match="install this project with the extra parquet"):
        load(tmp_path / "text.parquet", CropSpec(8))


def samples(part: str) -> list[tuple[str, bytes]]:
    files = []
    for index, (_, label, content) in enumerate(images(part)):
        key = f"{index:06}"
        files += [(f"{key}.png", content), (f"{key}.cls", str(CLASSES.index(label)).encode()), (f"{key}.json", b"{}")]
    return files


@pytest.mark.parametrize("reading", READINGS)
def test_a_webdataset_shard_is_read(tmp_path: Path, reading: Reading) -> None:
    data = tar_of(tmp_path / "shard-000000.tar", samples(""))
    assert counts(read(data, reading)) == {"0": 2, "1": 2, "2": 2}


def test_a_folder_of_webdataset_shards_is_read_with_its_parts(tmp_path: Path) -> None:
    for part, number in (("train", 0), ("train", 1), ("val", 0)):
        tar_of(tmp_path / "shards" / f"pets-{part}-{number:06}.tar", samples(f"{part}{number}"))
    folders = find_folders(tmp_path / "shards")
    assert folders.validation is not None
    for reading in READINGS:
        assert counts(read(folders.training, reading)) == {"0": 4, "1": 4, "2": 4}
        assert counts(read(folders.validation, reading)) == {"0": 2, "1": 2, "2": 2}


def test_a_sample_without_a_label_is_left_out_and_listed(tmp_path: Path) -> None:
    files = [file for file in samples("") if file[0] != "000000.cls"]
    dataset = load(tar_of(tmp_path / "shard.tar", files), CropSpec(8))
    assert counts(dataset) == {"0": 1, "1": 2, "2": 2}
    assert dataset.skipped == (("000000.png", "lies in no class folder"),)


def test_a_converted_data_set_is_converted_once_and_again_when_it_changes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tar_of(tmp_path / "cifar-10-python.tar.gz", cifar10_files(), "w:gz")
    for _ in range(2):
        assert len(load(find_folders(data).training, CropSpec(32))) == 30
    assert capsys.readouterr().err.count("converting cifar-10-python.tar.gz") == 1
    tar_of(data, cifar10_files(each=9), "w:gz")
    assert len(load(find_folders(data).training, CropSpec(32))) == 45
