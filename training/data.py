"""Pictures in folders, or in a tar of folders, packed once into a memory map of uint8 pixels.

The data itself may be read-only: the packed form lives in the user's cache folder, under the sizes and times of the
source's files. Pictures are decoded by the service's own code, so training and serving see the same pixels. What
cannot be decoded is skipped, counted and listed with its reason; too many, or a class left empty, and packing refuses.
"""

import contextlib
import csv
import errno
import hashlib
import json
import os
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.preprocess import image_to_pixels

_PACK_VERSION = 1
DEFAULT_MAX_SKIPPED = 0.2


class DataError(Exception):
    """The data cannot be used as it is. The message is one line that names the next step."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Packed pictures: uint8 (N, size, size, 3) memory-mapped, labels int64 (N,), class names in label order."""

    name: str
    source: str
    classes: tuple[str, ...]
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    fingerprint: str  # sha256 over class names, labels and pixels
    skipped: tuple[tuple[str, str], ...]  # file, reason

    def __len__(self) -> int:
        return len(self.labels)

    def facts(self) -> dict[str, Any]:
        """Return what a run records of its data."""
        return {
            "name": self.name,
            "source": self.source,
            "images": len(self),
            "skipped": len(self.skipped),
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True, slots=True)
class _Listing:
    """The files and folders of a data set, by their path inside it, and how to read a file."""

    files: Sequence[PurePosixPath]
    folders: Sequence[PurePosixPath]
    read: Callable[[PurePosixPath], bytes]


def load(
    source: Path,
    size: int,
    *,
    shorter_side: int | None = None,
    max_skipped: float = DEFAULT_MAX_SKIPPED,
    announce: Callable[[str], None] = lambda _line: None,
) -> Dataset:
    """Return the data set in a folder (or a tar) of class folders, with pictures of `size` x `size` pixels.

    The shorter side is resized to `shorter_side` (default: `size`) and the centre cut out. Packs at the first call,
    maps the packed file later.
    Raises DataError for a missing, empty or wrongly nested folder and for too many undecodable files.
    """
    given, source = source, _existing(source)
    shorter_side = shorter_side or size
    resized = "" if shorter_side == size else f"-of-{shorter_side}"
    packed = _cache_folder() / f"{_source_key(source)}-{size}{resized}"
    if not (packed / "dataset.json").is_file():
        _pack(source, size, shorter_side, max_skipped, packed, announce)
    facts = json.loads((packed / "dataset.json").read_text())
    dataset = Dataset(
        name=_name_of(source),
        source=str(given),
        classes=tuple(facts["classes"]),
        images=np.memmap(packed / "images.u8", np.uint8, "r", shape=(facts["images"], size, size, 3)),
        labels=np.load(packed / "labels.npy"),
        fingerprint=facts["fingerprint"],
        skipped=tuple((file, reason) for file, reason in facts["skipped"]),
    )
    refuse_too_many_skipped(dataset.classes, Counter(dataset.labels.tolist()), dataset.skipped, max_skipped)
    return dataset


@contextlib.contextmanager
def opened(source: Path) -> Iterator[tuple[dict[str, list[PurePosixPath]], Callable[[PurePosixPath], bytes]]]:
    """Open a folder (or a tar) of class folders: class name → files, in label order, and what reads a file's bytes.

    Raises DataError for a missing, empty or wrongly nested folder.
    """
    source = _existing(source)
    with _listing(source) as listing:
        yield _find_classes(listing, source), listing.read


def _existing(source: Path) -> Path:
    source = source.expanduser().resolve()
    if not source.exists():
        raise DataError(
            f"there is no folder or tar file {source}; give --data the folder that holds one folder a class"
        )
    return source


def write_skipped(skipped: Sequence[tuple[str, str]], path: Path) -> None:
    """List skipped files with their reasons, as CSV."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("file", "reason"))
        rows.writerows(skipped)


def stratified_hold_out(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of `count` pictures, drawn with a seed, each class by its share; int64 (count,)."""
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels))
    ranks = np.empty(len(labels))
    for label in np.unique(labels):
        members = shuffled[labels[shuffled] == label]
        # Picture i of a class of n is drawn once the fraction (i + 0.5) / n of everything has been.
        ranks[members] = (np.arange(len(members)) + 0.5) / len(members)
    return np.sort(np.argsort(ranks, kind="stable")[:count])


def _cache_folder() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "resnet-service" / "datasets"


def _name_of(source: Path) -> str:
    """Return the data set's name: cifar10 for cifar10-train.tar, pets for pets/train."""
    stem = source.name.removesuffix(".tar")
    if stem in ("train", "training", "val", "test"):
        stem = source.parent.name
    for ending in ("-train", "_train", "-training", "-test", "_test", "-val", "_val"):
        stem = stem.removesuffix(ending)
    return "".join(letter if letter.isalnum() else "-" for letter in stem.lower()).strip("-") or "pictures"


def _source_key(source: Path) -> str:
    """Return a key that changes when a file of the source is added, removed or rewritten."""
    digest = hashlib.sha256(f"{_PACK_VERSION}\n{source}\n".encode())
    for path in [source] if source.is_file() else sorted(source.rglob("*")):
        facts = path.stat()
        if path.is_file():
            digest.update(f"{path.relative_to(source)}\t{facts.st_size}\t{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]


def _pack(
    source: Path, size: int, shorter_side: int, max_skipped: float, packed: Path, announce: Callable[[str], None]
) -> None:
    """Decode every picture into a hidden folder beside `packed`, then give it its name in one step."""
    try:
        packed.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".packing-", dir=packed.parent, ignore_cleanup_errors=True) as folder:
            working = Path(folder) / "packed"
            working.mkdir()
            with _listing(source) as listing:
                classes = _find_classes(listing, source)
                announce(
                    f"packing {sum(map(len, classes.values())):,} files in {len(classes)} classes from {source.name}"
                )
                facts = _decode_all(listing, classes, size, shorter_side, working, max_skipped)
            (working / "dataset.json").write_text(json.dumps(facts))
            try:
                working.rename(packed)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):  # another process packed the same meanwhile
                    raise
    except OSError as error:
        raise DataError(
            f"cannot pack the pictures into {packed.parent}: {os.strerror(error.errno or errno.EIO)}; "
            "free space there, or set XDG_CACHE_HOME to a folder on another disk"
        ) from None


@contextlib.contextmanager
def _listing(source: Path) -> Iterator[_Listing]:
    """List a folder or a tar, without hidden files, and keep the tar open while it is read."""
    if source.is_dir():
        found = sorted(path.relative_to(source) for path in source.rglob("*"))
        files = [PurePosixPath(path) for path in found if (source / path).is_file()]
        folders = [PurePosixPath(path) for path in found if (source / path).is_dir()]
        yield _Listing(_visible(files), _visible(folders), lambda path: (source / path).read_bytes())
        return
    try:
        tar = tarfile.open(source)  # noqa: SIM115 - closed below, where its own errors are not taken for a bad tar's
    except tarfile.TarError:
        raise DataError(
            f"{source} is neither a folder nor a readable tar file; unpack it and give its folder"
        ) from None
    with tar:
        members = {PurePosixPath(member.name): member for member in tar.getmembers()}

        def read(path: PurePosixPath) -> bytes:
            file = tar.extractfile(members[path])
            return file.read() if file else b""

        ordered = sorted(members)
        files = [path for path in ordered if members[path].isfile()]
        folders = [path for path in ordered if members[path].isdir()]
        yield _Listing(_visible(files), _visible(folders), read)


def _visible(paths: list[PurePosixPath]) -> list[PurePosixPath]:
    return [path for path in paths if not any(part.startswith((".", "__MACOSX")) for part in path.parts)]


def _find_classes(listing: _Listing, source: Path) -> dict[str, list[PurePosixPath]]:
    """Return class name → files, in the order of the labels. Raises DataError for another layout."""
    depth = 0  # of the folders that wrap everything, as in train/cat/1.png
    while len({path.parts[: depth + 1] for path in listing.files}) == 1 and len(listing.files[0].parts) > depth + 2:
        depth += 1
    if not listing.files:
        raise DataError(f"{source} holds no files; it needs one folder a class, with that class's pictures in it")
    classes: dict[str, list[PurePosixPath]] = {
        path.parts[depth]: [] for path in listing.folders if len(path.parts) == depth + 1
    }
    for path in listing.files:
        inner = path.parts[depth:]
        if len(inner) > 2:
            raise DataError(_deep_nesting_message(source, path, sorted(classes)))
        if len(inner) == 2:
            classes.setdefault(inner[0], []).append(path)
    if not classes:
        raise DataError(f"the pictures lie directly in {source}; put those of each class into a folder named after it")
    for name, files in sorted(classes.items()):
        if not files:
            raise DataError(f"class folder {name!r} of {source} is empty; put pictures into it or remove it")
    if len(classes) == 1:
        raise DataError(f"{source} has only one class folder, {next(iter(classes))!r}; a classifier needs at least two")
    return dict(sorted(classes.items()))


def _deep_nesting_message(source: Path, path: PurePosixPath, folders: list[str]) -> str:
    hint = "give --data the folder that holds one folder a class"
    train = next((name for name in folders if name.lower() in ("train", "training")), None)
    test = next((name for name in folders if name.lower() in ("test", "val", "validation", "valid")), None)
    if train and test:
        hint = f"give --data {source / train} --test-data {source / test}"
    return f"wrong nesting in {source}: {path} lies deeper than class/picture; {hint}"


def _decode_all(
    listing: _Listing,
    classes: dict[str, list[PurePosixPath]],
    size: int,
    shorter_side: int,
    working: Path,
    max_skipped: float,
) -> dict[str, Any]:
    """Write images.u8 and labels.npy into `working` and return the facts for dataset.json."""
    digest = hashlib.sha256("\n".join(classes).encode())
    labels: list[int] = []
    skipped: list[tuple[str, str]] = []
    with (working / "images.u8").open("wb") as images:
        for label, paths in enumerate(classes.values()):
            for path in paths:
                try:
                    pixels, _ = image_to_pixels(listing.read(path), shorter_side=shorter_side, crop=(size, size))
                except (ServiceError, OSError) as error:
                    skipped.append((str(path), error.message if isinstance(error, ServiceError) else "cannot be read"))
                    continue
                content = pixels.tobytes()
                images.write(content)
                digest.update(content)
                labels.append(label)
    refuse_too_many_skipped(tuple(classes), Counter(labels), skipped, max_skipped)
    np.save(working / "labels.npy", np.array(labels, np.int64))
    digest.update(np.array(labels, np.int64).tobytes())
    return {
        "classes": list(classes),
        "images": len(labels),
        "fingerprint": digest.hexdigest(),
        "skipped": skipped,
    }


def refuse_too_many_skipped(
    classes: Sequence[str], counts: Counter[int], skipped: Sequence[tuple[str, str]], max_skipped: float
) -> None:
    """Raise DataError if a class has no picture (counts by label), or too large a share cannot be decoded."""
    total = counts.total() + len(skipped)
    example = f"; the first is {skipped[0][0]}: {skipped[0][1]}" if skipped else ""
    for label, name in enumerate(classes):
        if not counts[label]:
            raise DataError(f"no picture of class {name!r} can be decoded{example}")
    if len(skipped) > max_skipped * total:
        raise DataError(
            f"{len(skipped)} of {total} files cannot be decoded, more than --max-skipped {max_skipped:g} allows"
            f"{example}"
        )
