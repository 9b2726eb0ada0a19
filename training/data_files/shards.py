"""WebDataset shards: tars of samples, where `0001.jpg` is an image and `0001.cls` its label."""

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from training.data_files.class_folders import IMAGE_SUFFIXES
from training.data_files.listing import Listing, Place, of_places, renamed
from training.data_files.part_names import purpose_in
from training.data_files.tables import class_path
from training.data_files.tars import members_of, place_in_one_piece

_LABEL = ".cls"


def shard(listing: Listing) -> Listing | None:
    """Return the labelled images of a tar that is a shard; None for other data."""
    labels = [path for path in listing.files if path.name.endswith(_LABEL)]
    if not labels:
        return None
    texts = {_sample(path): _text(listing.read(path)) for path in labels}
    return renamed(listing, {_labelled(path, texts): path for path in _images(listing.files)})


def folder_of_shards(listing: Listing) -> Listing | None:
    """Return the labelled images of a folder of shards; None for other data.

    Shards whose names say that they are of a part, such as `val-0001.tar`, are in a folder of that part.
    """
    tars = [path for path in listing.files if path.suffix == ".tar"]
    if not tars or _images(listing.files):
        return None
    if not any(path.name.endswith(_LABEL) for path in members_of(place_in_one_piece(listing, tars[0]))):
        return None
    found: dict[PurePosixPath, Place] = {}
    for tar in tars:
        found |= _in_shard(tar, members_of(place_in_one_piece(listing, tar)))
    return of_places(found)


def _in_shard(tar: PurePosixPath, members: Mapping[PurePosixPath, Place]) -> dict[PurePosixPath, Place]:
    texts = {_sample(path): _text(members[path].read()) for path in members if path.name.endswith(_LABEL)}
    folder = tar.parent / (purpose_in(tar.stem) or "")
    return {folder / _labelled(path, texts, f"{tar.stem}-"): members[path] for path in _images(members)}


def _images(paths: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    return [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]


def _sample(path: PurePosixPath) -> PurePosixPath:
    """Return the key of a sample: the path up to the first dot of the name."""
    return path.parent / path.name.partition(".")[0]


def _labelled(path: PurePosixPath, labels: Mapping[PurePosixPath, str], prefix: str = "") -> PurePosixPath:
    return class_path(labels.get(_sample(path), ""), f"{prefix}{str(path).replace('/', '-')}")


def _text(label: bytes) -> str:
    return label.decode("utf-8", "replace").strip()
