"""A data set read once, from the first file to the last: packed into pixels, or only looked through.

Both leave a folder in the user's cache, made under another name and renamed when it is whole. Images are decoded by
the service's own code; what it cannot decode is listed with its reason, so that the images there are, and their
labels, are known before the first step.
"""

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import math
import os
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from service.errors import ServiceError
from training.data.crops import CropSpec
from training.data.decoder_pool import Decoders
from training.data.decoder_process import UNREADABLE, centre_of, digest_of
from training.data_files.class_folders import find_classes, strays
from training.data_files.listing import DataError, Listing, Place
from training.data_files.sources import listed

FACTS, LABELS, DIGESTS, PIXELS = "dataset.json", "labels.npy", "digests.npy", "images.u8"
OF_FILES = "files:"  # begins the fingerprint of a data set that is known by its files, not by its pixels
_FILES_AT_A_TIME = 1024  # between updates of the progress bar

Log = Callable[[str], None]
Classes = dict[str, list[PurePosixPath]]
Skipped = list[tuple[str, str]]  # file, reason


def pack(source: Path, target: Path, crop: CropSpec, max_skipped: float, announce: Log, least_classes: int) -> None:
    """Make `target` hold the pixels of every image, the labels, and the facts, unless it does already.

    Raises DataError for a folder of another layout, too many undecodable files, and a full disk.
    """
    with _made_once(target) as working:
        if working is None:
            return
        with listed(source) as listing:
            classes = find_classes(listing, source, least_classes)
            announce(f"packing {_count(classes):,} files in {len(classes)} classes from {source.name}")
            facts = _decode_all(listing, classes, crop, working, max_skipped)
        (working / FACTS).write_text(json.dumps(facts))


def look_through(
    source: Path,
    target: Path,
    crop: CropSpec,
    max_skipped: float,
    announce: Log,
    least_classes: int,
    decoders: Decoders,
) -> None:
    """Make `target` hold the labels and the facts of every image that can be decoded, unless it does already.

    Raises as `pack` does, and for a compressed tar, which cannot be read from the middle.
    """
    with _made_once(target) as working:
        if working is None:
            return
        with listed(source) as listing:
            classes = find_classes(listing, source, least_classes)
            announce(
                f"looking through {_count(classes):,} files in {len(classes)} classes of {source.name} once, with "
                f"{decoders.count} processes, for those that cannot be decoded"
            )
            facts = _decode_and_forget(source, listing, classes, crop, working, max_skipped, decoders)
        (working / FACTS).write_text(json.dumps(facts))


def places_of(source: Path, listing: Listing, paths: Sequence[PurePosixPath]) -> list[Place]:
    """Return where the files' bytes are. Raises DataError for a compressed tar."""
    places = [place for path in paths if (place := listing.place(path)) is not None]
    if len(places) < len(paths):
        raise DataError(
            f"{source} is a compressed tar, which cannot be read from the middle, and its images are not packed; "
            "unpack it and give its folder"
        )
    return places


@contextlib.contextmanager
def _made_once(target: Path) -> Iterator[Path | None]:
    """Yield a hidden folder that becomes `target` when it is filled, or None if `target` is there.

    Other processes that need the same folder wait meanwhile.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if (target / FACTS).is_file():
                yield None
                return
            with tempfile.TemporaryDirectory(
                prefix=".packing-", dir=target.parent, ignore_cleanup_errors=True
            ) as folder:
                working = Path(folder) / "packed"
                working.mkdir()
                yield working
                _rename(working, target)
    except OSError as error:
        raise DataError(
            f"cannot pack the images into {target.parent}: {os.strerror(error.errno or errno.EIO)}; "
            "free space there, or set XDG_CACHE_HOME to a folder on another disk"
        ) from None


def _rename(working: Path, target: Path) -> None:
    try:
        working.rename(target)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another machine packed the same meanwhile
            raise


def _count(classes: Classes) -> int:
    return sum(map(len, classes.values()))


def _outside(listing: Listing, classes: Classes) -> Skipped:
    return [(str(path), reason) for path, reason in strays(listing, classes)]


def _decode_all(
    listing: Listing, classes: Classes, crop: CropSpec, working: Path, max_skipped: float
) -> dict[str, Any]:
    """Write pixels and labels into `working` and return the facts; the fingerprint is over names, pixels, labels."""
    digest = hashlib.sha256("\n".join(classes).encode())
    labels: list[int] = []
    digests = array("Q")
    skipped = _outside(listing, classes)
    with (working / PIXELS).open("wb") as images:
        for label, paths in enumerate(classes.values()):
            for path in paths:
                try:
                    encoded = listing.read(path)
                    pixels = centre_of(encoded, crop)
                except (ServiceError, OSError) as error:
                    skipped.append((str(path), error.message if isinstance(error, ServiceError) else UNREADABLE))
                    continue
                content = pixels.tobytes()
                images.write(content)
                digest.update(content)
                labels.append(label)
                digests.append(digest_of(encoded))
    refuse_too_many_skipped(tuple(classes), Counter(labels), skipped, max_skipped)
    digest.update(_save_labels(labels, digests, working))
    return _facts(classes, labels, digest.hexdigest(), skipped)


def _decode_and_forget(
    source: Path,
    listing: Listing,
    classes: Classes,
    crop: CropSpec,
    working: Path,
    max_skipped: float,
    decoders: Decoders,
) -> dict[str, Any]:
    """Write labels into `working` and return the facts; the fingerprint is over the files' names and sizes."""
    digest = hashlib.sha256("\n".join(classes).encode())
    labels: list[int] = []
    digests = array("Q")
    skipped = _outside(listing, classes)
    files = [(label, path) for label, paths in enumerate(classes.values()) for path in paths]
    places = places_of(source, listing, [path for _, path in files])
    probe = dataclasses.replace(crop, size=1)  # all the work of decoding, and next to nothing to send
    for start in _with_a_bar(range(0, len(files), _FILES_AT_A_TIME)):
        part = slice(start, start + _FILES_AT_A_TIME)
        failed, of_files = decoders.looked_through(places[part], probe)
        digests.extend(of_files)
        for index, (label, path) in enumerate(files[part]):
            digest.update(f"{path}\t{_size(places[start + index])}\n".encode())
            if index in failed:
                skipped.append((str(path), failed[index]))
            else:
                labels.append(label)
    refuse_too_many_skipped(tuple(classes), Counter(labels), skipped, max_skipped)
    _save_labels(labels, digests, working)
    return _facts(classes, labels, OF_FILES + digest.hexdigest(), skipped)


def _size(place: Place) -> int:
    if place.length >= 0:
        return place.length
    try:
        return Path(place.path).stat().st_size
    except OSError:
        return 0  # a link that leads nowhere


def _save_labels(labels: list[int], digests: "array[int]", working: Path) -> bytes:
    numbers = np.array(labels, np.int64)
    np.save(working / LABELS, numbers)
    np.save(working / DIGESTS, np.array(digests, np.uint64))
    return numbers.tobytes()


def _facts(classes: Classes, labels: list[int], fingerprint: str, skipped: Skipped) -> dict[str, Any]:
    return {"classes": list(classes), "images": len(labels), "fingerprint": fingerprint, "skipped": skipped}


def _with_a_bar(starts: range) -> Iterator[int]:
    console = Console(stderr=True)
    yield from track(starts, "looking through", console=console, transient=True, disable=not console.is_terminal)


def refuse_too_many_skipped(
    classes: Sequence[str], counts: Counter[int], skipped: Sequence[tuple[str, str]], max_skipped: float
) -> None:
    """Raise DataError if a class has no image (counts by label), or too large a share cannot be decoded."""
    total = counts.total() + len(skipped)
    for label, name in enumerate(classes):
        if not counts[label]:
            of_class = [row for row in skipped if name in PurePosixPath(row[0]).parts[:-1]]
            raise DataError(
                f"no image of class {name!r} can be decoded{_example(of_class or skipped)}; put images that can be "
                "into its folder, or move the folder away"
            )
    if len(skipped) > max_skipped * total:
        enough = math.ceil(100 * len(skipped) / total) / 100
        raise DataError(
            f"{len(skipped)} of {total} files cannot be used, more than --max-skipped {max_skipped:g} allows"
            f"{_example(skipped)}; move them away, or give train-resnet --max-skipped {enough:g}"
        )


def _example(skipped: Sequence[tuple[str, str]]) -> str:
    return f"; the first is {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
