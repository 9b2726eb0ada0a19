"""The usual names of the parts of a data set: train, training_set, Val, validation, test_images, …"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Purpose = Literal["training", "validation", "test"]

_PURPOSES: dict[str, Purpose] = {
    **dict.fromkeys(("train", "training", "trn", "trainval"), "training"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "eval", "evaluation"), "validation"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
_FILLING = "sets? data datasets? images? imgs? images photos samples files folder split part"
_FILLING_WORD = re.compile(_FILLING.replace(" ", "|"))
_FUSED = re.compile(rf"(\w+?)(?:{_FILLING_WORD.pattern})")  # trainset
_WORD = re.compile(r"[^\W\d_]+")
# Folders beside the parts that are no classes.
_COMPANIONS = re.compile(
    "unlabell?ed|extra|annotations?|labels?|masks?|meta|metadata|docs?|devkit|predictions?|pred|splits?"
)


@dataclass(frozen=True, slots=True)
class Split:
    """The names of the folders that are parts, and of those beside them that are none."""

    training: str | None
    validation: str | None
    test: str | None
    others: tuple[str, ...] = ()
    unusable: str | None = None  # the training part, where no class folders are in it


def purpose_of(name: str) -> Purpose | None:
    """Return the purpose of the images that a folder's name states, without other words."""
    purpose, is_exact = _purpose_in(name)
    return purpose if is_exact else None


def purpose_in(name: str) -> Purpose | None:
    """Return the purpose that a name states among other words, such as `cifar10-train-0001`."""
    return _purpose_in(name)[0]


def _purpose_in(name: str) -> tuple[Purpose | None, bool]:
    """Return the purpose in a name, and whether the name has no other word; `seg_train` has one."""
    found = _WORD.findall(name.lower())
    words = [fused[1] if (fused := _FUSED.fullmatch(word)) else word for word in found]
    words = [word for word in words if not _FILLING_WORD.fullmatch(word)]
    if words == ["train", "val"]:
        return "training", True
    purposes = [_PURPOSES[word] for word in words if word in _PURPOSES]
    if len(purposes) != 1 or not {words[0], words[-1]} & _PURPOSES.keys():
        return None, False
    return purposes[0], len(words) == 1


def split_of(inner: Mapping[str, Sequence[str]], with_images: Sequence[str]) -> Split | None:
    """Return the parts among folders, given with their sub-folders and the names of those that hold images directly.

    A class may be called `train`: a part to train on holds class folders, and a part for validation or testing, or
    folders of the same names as in it, lies beside it. None: the folders are classes.
    """
    nested = [name for name in inner if inner[name]]
    training = _best("training", nested)
    validation, test = _best("validation", inner), _best("test", inner)
    if training is None:
        return _without_training(inner, validation, test)
    others = tuple(name for name in inner if name not in (training, validation, test))
    is_split = validation or test or (purpose_of(training) and _are_no_classes(others, training, inner, with_images))
    return Split(training, validation, test, others) if is_split and len(inner) > 1 else None


def _best(purpose: Purpose, names: Sequence[str] | Mapping[str, Sequence[str]]) -> str | None:
    found = [
        (not is_exact, len(name), name) for name in names for found, is_exact in [_purpose_in(name)] if found == purpose
    ]
    return min(found)[2] if found else None


def _without_training(inner: Mapping[str, Sequence[str]], validation: str | None, test: str | None) -> Split | None:
    """Return the parts where none can be trained on: there is none, or its images lie in no class folders."""
    purposes = {name: purpose_of(name) for name in inner}
    if len(inner) < 2 or None in purposes.values():
        return None
    training = next((name for name, purpose in purposes.items() if purpose == "training"), None)
    return Split(None, validation, test, unusable=training)


def _are_no_classes(
    others: Sequence[str], training: str, inner: Mapping[str, Sequence[str]], with_images: Sequence[str]
) -> bool:
    """Whether folders beside a part to train on hold the same classes, or are known to be something else."""
    return all(
        _COMPANIONS.fullmatch(name.lower()) or (name not in with_images and set(inner[name]) & set(inner[training]))
        for name in others
    )
