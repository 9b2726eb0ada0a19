"""Images that a run uses twice: for training and measuring, or in two classes. Files are compared by their bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.splits import Part, path_of

_NAMES = {"val": "held-out", "test": "test"}


@dataclass(frozen=True, slots=True)
class Duplicates:
    """The numbers of duplicates by kind, with a pair of files for each."""

    trained_on: dict[str, int]  # part → those of its images that are trained on, too
    under_two_classes: int  # images, however many copies there are of each
    examples: dict[str, tuple[str, str]]  # part, or `classes` → two files with the same bytes

    def facts(self) -> dict[str, Any]:
        """Return what a run records of them."""
        return {"also_trained_on": self.trained_on, "under_two_classes": self.under_two_classes} | (
            {"examples": self.examples} if self.examples else {}
        )

    def lines(self) -> list[str]:
        """Return a warning for each kind of duplicate found."""
        lines = [
            f"{_NAMES[part]} images that are also trained on: {count:,}, for example {self._example(part)}; remove "
            f"them from one of the two parts, or the {_NAMES[part]} error looks better than it is"
            for part, count in self.trained_on.items()
            if count
        ]
        if self.under_two_classes:
            lines.append(
                f"images that lie under two classes: {self.under_two_classes:,}, for example "
                f"{self._example('classes')}; keep each in the class that it shows"
            )
        return lines

    def _example(self, kind: str) -> str:
        return " and ".join(self.examples[kind])


def duplicates_in(parts: Sequence[Part], data: Path) -> Duplicates:
    """Compare the parts of a run, the first of which is trained on."""
    training, *others = parts
    trained_on, examples = {}, {}
    for part in others:
        twice = np.flatnonzero(np.isin(part.digests, training.digests))
        trained_on[part.name] = len(twice)
        if len(twice):
            first = int(np.flatnonzero(training.digests == part.digests[twice[0]])[0])
            examples[part.name] = (path_of(part, int(twice[0]), data), path_of(training, first, data))
    ambiguous = _under_two_labels(parts)
    if len(ambiguous):
        examples["classes"] = _of_two_labels(parts, ambiguous[0], data)
    return Duplicates(trained_on, len(ambiguous), examples)


def _under_two_labels(parts: Sequence[Part]) -> NDArray[np.uint64]:
    """Return the digests of images that have several labels."""
    digests, labels = (np.concatenate([getattr(part, name) for part in parts]) for name in ("digests", "labels"))
    order = np.lexsort((labels, digests))
    digests, labels = digests[order], labels[order]
    is_other = (digests[1:] == digests[:-1]) & (labels[1:] != labels[:-1])
    return np.unique(digests[1:][is_other])


def _of_two_labels(parts: Sequence[Part], digest: np.uint64, data: Path) -> tuple[str, str]:
    """Return a file under each of two labels."""
    found = [(part, int(place)) for part in parts for place in np.flatnonzero(part.digests == digest)]
    first, label = found[0], found[0][0].labels[found[0][1]]
    second = next((part, place) for part, place in found if part.labels[place] != label)
    return path_of(*first, data), path_of(*second, data)
