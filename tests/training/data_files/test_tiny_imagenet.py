"""Tiny ImageNet becomes two tars of class folders, from the zip, the folder or a git directory."""

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from training.cli import main
from training.data_files.listing import DataError
from training.data_files.tiny_imagenet import TARS, convert

WORDS = "n01\tgoldfish, Carassius auratus\nn02\tcrane\nn03\tcrane\nn04\tnot one of the classes\n"
TRAIN = {
    f"train/{synset}/images/{synset}_{n}.JPEG": f"{synset}{n}".encode()
    for synset in ("n01", "n02", "n03")
    for n in (0, 1)
}
VALIDATION = {"val/images/val_0.JPEG": b"first", "val/images/val_1.JPEG": b"second"}
TABLES = {
    "wnids.txt": b"n02\nn01\nn03\n",
    "words.txt": WORDS.encode(),
    "val/val_annotations.txt": b"val_0.JPEG\tn01\t0\t0\t62\t62\nval_1.JPEG\tn03\t0\t0\t62\t62\n",
    "test/images/test_0.JPEG": b"unlabelled",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "tiny-imagenet-200"
    for path, content in (TRAIN | VALIDATION | TABLES).items():
        (top / path).parent.mkdir(parents=True, exist_ok=True)
        (top / path).write_bytes(content)
    return top


def members(tar: Path) -> dict[str, bytes]:
    with tarfile.open(tar) as opened:
        return {member.name: opened.extractfile(member).read() for member in opened}  # type: ignore[union-attr]


def test_the_folder_becomes_class_folders_named_by_words(folder: Path, tmp_path: Path) -> None:
    assert convert(folder, tmp_path / "out") == {TARS[0]: 6, TARS[1]: 2}
    train = members(tmp_path / "out" / TARS[0])
    assert train["goldfish/n01_0.JPEG"] == b"n010" and train["crane (n02)/n02_1.JPEG"] == b"n021"
    assert list(train) == sorted(train)
    assert members(tmp_path / "out" / TARS[1]) == {"goldfish/val_0.JPEG": b"first", "crane (n03)/val_1.JPEG": b"second"}


def test_zip_and_git_directory_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tiny.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(tmp_path))
    for command in (["init", "-q"], ["add", "tiny-imagenet-200"], ["commit", "-qm", "images"]):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.example"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path, check=True)
    sources = {"folder": folder, "zip": tmp_path / "tiny.zip", "git": tmp_path / ".git"}
    for name, source in sources.items():
        convert(source, tmp_path / name)
    for tar in TARS:
        assert len({(tmp_path / name / tar).read_bytes() for name in sources}) == 1


def test_something_else_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.zip").write_bytes(b"no zip")
    for source in (tmp_path / "empty", tmp_path / "file.zip", tmp_path / "missing"):
        with pytest.raises(DataError) as caught:
            convert(source, tmp_path / "out")
        assert "\n" not in str(caught.value)
    answer = CliRunner().invoke(main, ["convert-tiny-imagenet", str(tmp_path / "file.zip"), str(tmp_path / "out")])
    assert answer.exit_code == 1 and "is not Tiny ImageNet: give tiny-imagenet-200.zip" in answer.stderr
