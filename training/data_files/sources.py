"""What people give as data: a folder, an archive, or a table, and the class folders in it.

folder, tar, zip      with a folder of images for each class
table                 CSV, TSV or JSON lines with paths and labels (`tables`)
Hugging Face          metadata files beside images (`tables`), or Parquet files (`parquet`)
WebDataset            a shard, or a folder of shards (`shards`)
CIFAR, ImageNet       the original archives (`cifar`, `imagenet`)

A folder in any of them is named as one on the disk: images.tar/train.
"""

import contextlib
import hashlib
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from training.data_files import cifar, imagenet, parquet, shards, tables
from training.data_files.converted import converted
from training.data_files.listing import (
    DataError,
    Listing,
    Place,
    is_left_behind,
    list_folder,
    of_places,
    walk,
    within,
)
from training.data_files.part_names import purpose_of
from training.data_files.tars import TarFiles, members_of
from training.data_files.zips import list_zip

_KEY_VERSION = 3  # 1: large JPEGs were decoded at full scale; 2: without digests of the files
_SUFFIXES_OF_PARTS = (parquet.SUFFIX, ".tar")  # of files that may hold the parts of a data set


def existing(source: Path) -> Path:
    """Return the whole path of a folder, a file, or a folder in one. Raises DataError if there is none."""
    source = source.expanduser().resolve()
    if not is_there(source):
        raise DataError(f"there is no folder or tar file {source}; give the folder that holds one folder a class")
    return source


def is_there(source: Path) -> bool:
    """Return whether a path is a folder or a file, or leads into one that holds folders."""
    container, _ = _located(source)
    return container.exists()


def _located(source: Path) -> tuple[Path, PurePosixPath]:
    """Return the file or folder on the disk that a path is or leads into, and the rest of the path."""
    if _is_part_of_the_folder_above(source):
        return source.parent, PurePosixPath(source.name)
    file = next((path for path in (source, *source.parents) if path.is_file()), source)
    return file, PurePosixPath(source.relative_to(file))


def _is_part_of_the_folder_above(source: Path) -> bool:
    """Return whether a path such as cifar-100-python/train is a part that only the files of its folder define."""
    if purpose_of(source.name) is None or not source.parent.is_dir():
        return False
    above = os.listdir(source.parent)
    if source.is_dir():
        return not tables.METADATA.isdisjoint(above) and tables.METADATA.isdisjoint(os.listdir(source))
    marks = tables.METADATA | cifar.MARKS
    return any(name in marks or name.endswith(_SUFFIXES_OF_PARTS) for name in above)


@contextlib.contextmanager
def listed(source: Path) -> Iterator[Listing]:
    """List the images of a source as class folders, without ignored files, and keep archives open during the reading.

    Raises DataError for other files, and for a folder that is not in them.
    """
    container, inside = _located(source)
    with _files_of(container) as files:
        found = within(_in_class_folders(files, container), inside)
        if inside.parts and not (found.files or found.folders):
            raise DataError(
                f"there is no folder {inside} in {container}; give --data {container} alone, or a folder that is in it"
            )
        yield found


@contextlib.contextmanager
def _files_of(container: Path) -> Iterator[Listing]:
    """List a folder, or what is in a file, as it is."""
    if not container.is_file():
        yield list_folder(container)
    elif container.suffix.lower() in tables.SUFFIXES:
        yield tables.list_table(container)
    elif container.suffix.lower() == parquet.SUFFIX:
        yield of_places({PurePosixPath(container.name): Place(str(container))})
    elif zipfile.is_zipfile(container) and not tarfile.is_tarfile(container):
        with zipfile.ZipFile(container) as opened:
            yield list_zip(container, opened)
    else:
        with contextlib.ExitStack() as stack:
            yield _list_tar(container, stack)


def _list_tar(container: Path, stack: contextlib.ExitStack) -> Listing:
    try:
        tar = stack.enter_context(tarfile.open(container))  # noqa: SIM115 - the stack closes it
        found = TarFiles(tar, is_left_behind)
    except (tarfile.TarError, EOFError, zlib.error):  # the last two: of a compressed one that is cut off or damaged
        raise DataError(
            f"{container} is neither a folder nor a readable tar file, zip file, table (CSV, TSV, JSON lines) or "
            "Parquet file; unpack it and give its folder"
        ) from None

    def place(path: PurePosixPath) -> Place | None:
        where = found.where(path)
        return None if where is None else Place(str(container), *where)

    return Listing(found.files, found.folders, found.dead, found.read, place)


def _in_class_folders(files: Listing, container: Path) -> Listing:
    """Return files that are arranged in another way as if they were in class folders."""
    imagenet.refuse_unlabelled(files, container)
    for arranged in (tables.with_metadata, shards.shard, imagenet.tars_of_classes, shards.folder_of_shards):
        if found := arranged(files):
            return found
    for images_in in (cifar.images_in, parquet.images_in):
        if images := images_in(files):
            return of_places(members_of(Place(str(converted(container, source_key(container), images)))))
    return files


def source_key(source: Path) -> str:
    """Return a key that changes when a file of the source is added, removed or rewritten."""
    container, _ = _located(source)
    digest = hashlib.sha256(os.fsencode(f"{_KEY_VERSION}\n{source}\n"))
    if container.is_file():
        digest.update(_state(container.name, container.stat()))
        for file in tables.files_of(container) if container.suffix.lower() in tables.SUFFIXES else ():
            with contextlib.suppress(OSError):  # a file that is not there
                digest.update(_state(str(file), file.stat()))
        return digest.hexdigest()[:32]
    for inside, entry, kind in walk(container):
        if kind == "file":
            digest.update(_state(inside, entry.stat()))
    return digest.hexdigest()[:32]


def _state(inside: str, facts: os.stat_result) -> bytes:
    return os.fsencode(f"{inside}\t{facts.st_size}\t{facts.st_mtime_ns}\n")
