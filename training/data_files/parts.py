"""The parts of a data set that is split into train/ and val/ (and test/), at any depth.

They are found and used without an option. A part whose images lie in no class folders has no labels: it is left
out, which is logged.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from training.data_files.class_folders import Parts, Tree, refuse_split, sub_folders_line, tree_of
from training.data_files.part_names import Split, purpose_of
from training.data_files.sources import existing, listed


@dataclass(frozen=True, slots=True)
class Folders:
    """The folder of each part; None: there is no such folder."""

    training: Path
    validation: Path | None = None
    test: Path | None = None
    notes: tuple[str, ...] = ()  # lines for people: what is left aside, and which classes have sub-folders

    def __str__(self) -> str:
        folders = (("train on", self.training), ("validate on", self.validation), ("test on", self.test))
        return ", ".join(f"{verb} {folder.name}" for verb, folder in folders if folder)


def find_folders(data: Path) -> Folders:
    """Return the parts of data that is split into folders of the usual names; all is for training in another one.

    Raises DataError where there is nothing, or no part that can be trained on.
    """
    with listed(existing(data)) as listing:
        tree = tree_of(listing)
        folders = [path.parts for path in listing.folders]
    root = tree.unwrapped()
    split = tree.split(root)
    if split is None:
        line = sub_folders_line(tree, root, data)
        return Folders(data, notes=(line,) if line else ())
    if split.training is None:
        refuse_split(data.joinpath(*root), split)
    here = [path for path in folders if path[:-1] == root and path not in tree.holding and path not in tree.inner]
    return _parts_of(tree, root, split, [path[-1] for path in here if purpose_of(path[-1])], data)


def part_to_measure(data: Path, log: Callable[[str], None]) -> Path:
    """Return the test or validation part of data that is split, or the data itself, and log which. Raises DataError."""
    with listed(existing(data)) as listing:
        tree = tree_of(listing)
    root = tree.unwrapped()
    split = tree.split(root)
    if split is None:
        return data
    training = (*root, split.training) if split.training else None
    for name in (split.test, split.validation):
        if name and _is_labelled(tree, (*root, name), training):
            log(f"{data} is split; evaluating on {name}")
            return data.joinpath(*root, name)
    return data


def _parts_of(tree: Tree, root: Parts, split: Split, empty: list[str], data: Path) -> Folders:
    """Return the parts as whole paths, with what is left out of them."""
    training = (*root, split.training or "")
    notes: list[str] = []
    parts: list[Path | None] = []
    for name in (split.validation, split.test):
        is_labelled = name is not None and _is_labelled(tree, (*root, name), training)
        parts.append(data.joinpath(*root, name) if name is not None and is_labelled else None)
        if name is not None and not is_labelled:
            notes.append(
                f"{data.joinpath(*root, name)} is left aside: its images lie in no folders of the classes to train on"
            )
    if aside := [*split.others, *empty]:
        notes.append(f"left aside, being empty or no part: {', '.join(aside)}")
    if line := sub_folders_line(tree, tree.unwrapped(training), data):
        notes.append(line)
    validation, test = parts
    return Folders(data.joinpath(*training), validation, test, tuple(notes))


def _is_labelled(tree: Tree, part: Parts, training: Parts | None) -> bool:
    """Whether a part has class folders; a single one must be of a class that is trained on."""
    known = tree.sub_folders(tree.unwrapped(training)) if training else []
    classes = tree.sub_folders(tree.unwrapped(part, known))
    return len(classes) > 1 or (len(classes) == 1 and (not known or classes[0] in known))
