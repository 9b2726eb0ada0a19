"""Small data sets in the layouts of published archives and of the tools that people use."""

import csv
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.image_files.image_trees import image_bytes

CLASSES = ("cat", "dog", "owl")


def images(part: str = "", each: int = 2) -> list[tuple[str, str, bytes]]:
    """Return name, class and bytes of the images of a part."""
    return [
        (f"{part}{name}{index}.png", name, image_bytes(f"{part}{name}{index}"))
        for index in range(each)
        for name in CLASSES
    ]


def tar_of(path: Path, files: Iterable[tuple[str, bytes]], mode: str = "w") -> Path:
    """Write a tar of files, name and content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def bytes_of_tar(files: Iterable[tuple[str, bytes]], folder: Path) -> bytes:
    """Return the content of such a tar."""
    return tar_of(folder / "inner.tar", files).read_bytes()


def zip_of(path: Path, files: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip of files, name and content."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in files:
            file.writestr(name, content)
    return path


def write_files(folder: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    """Write files, name and content, into a folder."""
    for name, content in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def in_class_folders(part: str = "") -> list[tuple[str, bytes]]:
    """Return the files of a part in class folders."""
    return [(f"{part}{label}/{name}", content) for name, label, content in images(part)]


def csv_of(rows: Iterable[Mapping[str, Any]], delimiter: str = ",") -> bytes:
    """Return a table with a line of column names."""
    rows, text = list(rows), io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()


def jsonl_of(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a line of JSON for each row."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def cifar_pixels(count: int, seed: int) -> NDArray[np.uint8]:
    """Return images as CIFAR stores them, uint8 (count, 3072)."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), np.uint8)


def cifar10_files(each: int = 6) -> list[tuple[str, bytes]]:
    """Return the files of cifar-10-python.tar.gz with this many images in a batch."""
    top = "cifar-10-batches-py"
    batches = [(f"data_batch_{number}", number) for number in range(1, 6)] + [("test_batch", 6)]
    files = [(f"{top}/readme.html", b"<html>"), (f"{top}/batches.meta", python2_pickle({b"label_names": [*CLASSES]}))]
    for name, seed in batches:
        labels = [index % len(CLASSES) for index in range(each)]
        files.append((f"{top}/{name}", python2_pickle({b"data": cifar_pixels(each, seed), b"labels": labels})))
    return files


def cifar100_files(each: int = 6) -> list[tuple[str, bytes]]:
    """Return the files of cifar-100-python.tar.gz with this many images in a part."""
    labels = [index % len(CLASSES) for index in range(each)]
    part = {b"fine_labels": labels, b"coarse_labels": [0] * each}
    names = {b"fine_label_names": [*CLASSES], b"coarse_label_names": ["animal"]}
    return [
        ("cifar-100-python/meta", python2_pickle(names)),
        ("cifar-100-python/train", python2_pickle({b"data": cifar_pixels(each, 1)} | part)),
        ("cifar-100-python/test", python2_pickle({b"data": cifar_pixels(each, 2)} | part)),
    ]


def cifar10_binary_files(each: int = 6) -> list[tuple[str, bytes]]:
    """Return the files of cifar-10-binary.tar.gz with this many images in a batch."""
    labels = np.array([[index % len(CLASSES)] for index in range(each)], np.uint8)
    batches = [(f"data_batch_{number}", number) for number in range(1, 6)] + [("test_batch", 6)]
    top = "cifar-10-batches-bin"
    return [(f"{top}/batches.meta.txt", ("\n".join(CLASSES) + "\n\n").encode())] + [
        (f"{top}/{name}.bin", np.hstack([labels, cifar_pixels(each, seed)]).tobytes()) for name, seed in batches
    ]


def python2_pickle(content: Any) -> bytes:
    """Return a pickle whose arrays are of the module in which old versions of numpy had them."""
    return pickle.dumps(content, protocol=2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
