"""Folders of small images at whatever paths, and tars of them."""

import io
import random
import tarfile
from collections.abc import Iterable
from pathlib import Path

from PIL import Image


def image_bytes(name: str) -> bytes:
    """Return a small image that no other name has."""
    content = io.BytesIO()
    random_pixels = random.Random(name).randbytes(8 * 8 * 3)
    Image.frombytes("RGB", (8, 8), random_pixels).save(content, "PNG")
    return content.getvalue()


def write_images(folder: Path, paths: Iterable[str]) -> Path:
    """Write an image at each path whose name ends in .png, and a line of text at each other one."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        is_image = path.endswith(".png")
        (folder / path).write_bytes(image_bytes(path) if is_image else b"a line\n")
    return folder


def classes_in(*folders: str, names: Iterable[str] = ("cat", "dog"), each: int = 2) -> list[str]:
    """Return the paths of so many images of each class in each folder."""
    return [f"{folder}/{name}/{index}.png" for folder in folders for name in names for index in range(each)]


def as_tar(folder: Path) -> Path:
    """Return a tar of a folder's content, links as links, beside it."""
    tar = folder.with_name(f"{folder.name}.tar")
    with tarfile.open(tar, "w") as file:
        file.add(folder, arcname=".")
    return tar
