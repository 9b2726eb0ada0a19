"""The class folders of a data set, found by one rule in a folder on the disk and in a tar.

A folder that wraps everything, as `train/` in a tar, is passed through; sub-folders of a class count for the class, as
torchvision's ImageFolder has it; any other layout is refused in one line that says what to change.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NoReturn

from training.data_files.listing import DataError, Listing
from training.data_files.part_names import Split, split_of

Parts = tuple[str, ...]  # of a path inside the data; (): the data itself

# Usual suffixes of images. Files with others are read, too: these only distinguish layouts.
IMAGE_SUFFIXES = frozenset(
    f".{ending}"
    for ending in [
        "jpg",
        "jpeg",
        "jpe",
        "jfif",
        "png",
        "webp",
        "bmp",
        "gif",
        "tif",
        "tiff",
        "heic",
        "heif",
        "avif",
        "jp2",
        "jxl",
    ]
)
_MOST_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Tree:
    """The folders of a listing that hold files, or whose sub-folders do."""

    inner: dict[Parts, list[str]]  # folder → its sub-folders
    holding: frozenset[Parts]  # folders that hold files directly
    with_images: frozenset[Parts]  # folders that hold images directly

    def sub_folders(self, folder: Parts) -> list[str]:
        return self.inner.get(folder, [])

    def unwrapped(self, folder: Parts = (), known: Sequence[str] = ()) -> Parts:
        """Return the folder that is left when those that wrap everything are passed through; `known` are classes."""
        while len(only := self.sub_folders(folder)) == 1 and only[0] not in known:
            if not self.sub_folders((*folder, *only)):
                break
            folder = (*folder, *only)
        return folder

    def split(self, folder: Parts) -> Split | None:
        """Return which sub-folders are the parts of a data set that is split already; None where it is not."""
        inner = {name: self.sub_folders((*folder, name)) for name in self.sub_folders(folder)}
        return split_of(inner, [name for name in inner if (*folder, name) in self.with_images])


def tree_of(listing: Listing) -> Tree:
    """Return the folders of a listing."""
    inner: defaultdict[Parts, set[str]] = defaultdict(set)
    holding = frozenset(path.parts[:-1] for path in listing.files)
    for folder in holding:
        for depth in range(len(folder)):
            inner[folder[:depth]].add(folder[depth])
    with_images = frozenset(path.parts[:-1] for path in listing.files if path.suffix.lower() in IMAGE_SUFFIXES)
    return Tree({folder: sorted(names) for folder, names in inner.items()}, holding, with_images)


def strays(listing: Listing, classes: dict[str, list[PurePosixPath]]) -> list[tuple[PurePosixPath, str]]:
    """Return the files outside class folders, with the reason why they cannot be used."""
    inside = {path for files in classes.values() for path in files}
    outside = [path for path in listing.files if path not in inside]
    return [(path, "is a link to nothing" if path in listing.dead else "lies in no class folder") for path in outside]


def find_classes(listing: Listing, source: Path, least_classes: int = 1) -> dict[str, list[PurePosixPath]]:
    """Return class name → files, in the order of the labels. Raises DataError for another layout."""
    if not listing.files:
        raise DataError(f"{source} holds no files; it needs one folder a class, with that class's images in it")
    tree = tree_of(listing)
    root = tree.unwrapped()
    if split := tree.split(root):
        refuse_split(source.joinpath(*root), split)
    depth = len(root)
    classes: dict[str, list[PurePosixPath]] = {
        path.parts[depth]: [] for path in listing.folders if path.parts[:-1] == root
    }
    for path in listing.files:
        if len(path.parts) > depth + 1 and path.parts[:depth] == root:
            classes.setdefault(path.parts[depth], []).append(path)
    if not classes:
        raise DataError(_no_folders_message(listing, source))
    _refuse_unusable(classes, source)
    refuse_lack_of_classes(list(classes), source, least_classes)
    return dict(sorted(classes.items()))


def _refuse_unusable(classes: dict[str, list[PurePosixPath]], source: Path) -> None:
    for name, files in sorted(classes.items()):
        if any("\ud800" <= letter <= "\udfff" for letter in name):  # how Python represents bytes that are not UTF-8
            raise DataError(f"the name of class folder {name!r} is not UTF-8; rename it")
        if not files:
            raise DataError(f"class folder {name!r} of {source} is empty; put images into it or remove it")


def refuse_lack_of_classes(classes: Sequence[str], source: Path, least: int) -> None:
    """Raise DataError if there are fewer classes than are needed."""
    if len(classes) < least:
        raise DataError(
            f"{source} has only one class folder, {classes[0]!r}; a classifier needs at least two: give the folder "
            "that holds one folder a class"
        )


def _no_folders_message(listing: Listing, source: Path) -> str:
    if listing.dead.issuperset(listing.files):
        first = listing.files[0]
        return f"{source / first} is a link to nothing; put the folder itself there, or a link that leads to it"
    return f"the images lie directly in {source}; put those of each class into a folder named after it"


def refuse_split(root: Path, split: Split) -> NoReturn:
    """Raise DataError that says how to give the parts of a data set, or what they lack."""
    if split.unusable is not None:
        raise DataError(
            f"the images of {root / split.unusable} lie in no class folders; put those of each class into a folder "
            "named after it"
        )
    named = [name for name in (split.training, split.test, split.validation) if name is not None]
    options = zip(("--data", "--test-data"), named, strict=False)
    advice = " ".join(f"{option} {root / name}" for option, name in options)
    raise DataError(f"wrong nesting in {root}: it holds the parts of a data set, not its classes; give {advice}")


def sub_folders_line(tree: Tree, root: Parts, source: Path) -> str | None:
    """Return a warning about class folders that have sub-folders; None if there are none."""
    nested = {name: inner for name in tree.sub_folders(root) if (inner := tree.sub_folders((*root, name)))}
    if not nested:
        return None
    shown = ", ".join(f"{name!r} ({first_few(inner)})" for name, inner in list(nested.items())[:_MOST_SHOWN])
    more = f" and {len(nested) - _MOST_SHOWN:,} more classes" if len(nested) > _MOST_SHOWN else ""
    line = f"images in sub-folders count for the class folder above them: {shown}{more}"
    name, inner = next(iter(nested.items()))
    if len(inner) > 1 and (*root, name) not in tree.with_images:
        line += f"; if the sub-folders are the classes, give --data {source.joinpath(*root, name)}"
    return line


def first_few(names: Sequence[str]) -> str:
    """Return the first of some names, for a line."""
    return ", ".join(names[:_MOST_SHOWN]) + (", …" if len(names) > _MOST_SHOWN else "")
