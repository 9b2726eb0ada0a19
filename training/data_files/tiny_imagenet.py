"""Tiny ImageNet 200 as two tars of class folders: 100,000 training images and 10,000 test images of 64 x 64 pixels.

The source is what its publishers' archive holds (`wnids.txt`, `words.txt`, `train/`, `val/`): the zip itself, the
unpacked folder, or a bare git directory that contains the folder. Classes get the first word of their WordNet synset.
The unlabelled `test/` part is left out; the labelled `val/` part is the one to test on.
"""

import io
import subprocess
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from training.data_files.listing import DataError

_TOP = "tiny-imagenet-200"
_PARTS = ("train", "val")
_SUFFIX = ".JPEG"
TARS = tuple(f"tiny-imagenet-{part}.tar" for part in _PARTS)


@dataclass(frozen=True, slots=True)
class _Archive:
    """The files of the published archive, by their path below its top folder."""

    read: Callable[[str], bytes]
    images: Callable[[], Iterator[tuple[str, bytes]]]  # (train/… or val/…, content), in any order


def convert(source: Path, folder: Path) -> dict[str, int]:
    """Write the two tars into `folder` and return the number of images in each, by the tar's name.

    Members are sorted and have no times or owners, so that the same source gives the same bytes.
    Raises DataError for a source that is not Tiny ImageNet, or a folder that cannot be written.
    """
    try:
        with _opened(source) as archive:
            labels = _labels(archive)
            images = _sorted_images(archive, labels)
        folder.mkdir(parents=True, exist_ok=True)
        return {name: _write(folder / name, images[part]) for name, part in zip(TARS, _PARTS, strict=True)}
    except (KeyError, ValueError, zipfile.BadZipFile, subprocess.CalledProcessError):
        raise DataError(
            f"{source} is not Tiny ImageNet: give {_TOP}.zip, the folder {_TOP} that it unpacks to, or a bare git "
            "directory that holds this folder"
        ) from None
    except OSError as error:
        raise DataError(f"cannot convert {source} into {folder}: {error.strerror}; give another folder") from None


@contextmanager
def _opened(source: Path) -> Iterator[_Archive]:
    if source.is_file():
        with zipfile.ZipFile(source) as opened:
            yield _Archive(lambda path: opened.read(f"{_TOP}/{path}"), lambda: _of_a_zip(opened))
    elif (source / "HEAD").is_file():
        yield _Archive(
            lambda path: _git(source, "show", f"HEAD:{_TOP}/{path}").stdout, lambda: _of_a_git_directory(source)
        )
    else:
        yield _Archive(lambda path: (source / path).read_bytes(), lambda: _of_a_folder(source))


def _of_a_zip(opened: zipfile.ZipFile) -> Iterator[tuple[str, bytes]]:
    for name in opened.namelist():
        path = name.removeprefix(f"{_TOP}/")
        if path.startswith(_PARTS) and path.endswith(_SUFFIX):
            yield path, opened.read(name)


def _of_a_folder(source: Path) -> Iterator[tuple[str, bytes]]:
    for part in _PARTS:
        for path in (source / part).rglob(f"*{_SUFFIX}"):
            yield path.relative_to(source).as_posix(), path.read_bytes()


def _of_a_git_directory(source: Path) -> Iterator[tuple[str, bytes]]:
    packed = _git(source, "archive", "HEAD", *(f"{_TOP}/{part}" for part in _PARTS)).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.name.endswith(_SUFFIX) else None
            if content is not None:
                yield member.name.removeprefix(f"{_TOP}/"), content.read()


def _git(source: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(["git", "-C", str(source), *arguments], capture_output=True, check=True)  # noqa: S603, S607


def _labels(archive: _Archive) -> dict[str, str]:
    """Return a label for each synset id: its first word. Two classes of one word keep their ids as well."""
    words = dict(line.split("\t", 1) for line in archive.read("words.txt").decode().splitlines())
    first = {synset: words[synset].split(",")[0].strip() for synset in archive.read("wnids.txt").decode().split()}
    taken = list(first.values())
    return {synset: word if taken.count(word) == 1 else f"{word} ({synset})" for synset, word in first.items()}


def _sorted_images(archive: _Archive, labels: dict[str, str]) -> dict[str, list[tuple[str, bytes]]]:
    """Return the images of each part as (class/file, content); a validation image's class is in a table."""
    lines = archive.read("val/val_annotations.txt").decode().splitlines()
    validation = {name: synset for name, synset, *_ in (line.split("\t") for line in lines)}
    images: dict[str, list[tuple[str, bytes]]] = {part: [] for part in _PARTS}
    for path, content in archive.images():
        part, *middle, name = PurePosixPath(path).parts
        synset = middle[0] if part == "train" else validation[name]
        images[part].append((f"{labels[synset]}/{name}", content))
    return {part: sorted(found) for part, found in images.items()}


def _write(target: Path, images: list[tuple[str, bytes]]) -> int:
    if not images:
        raise ValueError(f"no images for {target}")
    hidden = target.with_name(f".{target.name}")
    with tarfile.open(hidden, "w") as tar:
        for path, content in images:
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    hidden.replace(target)
    return len(images)
