"""The images of a run by their purpose: training, held-out (validation) and test images."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.channel_statistics import Statistics, measure, sample
from training.data.dataset import Dataset, stratified_hold_out
from training.data.duplicates import duplicates_in
from training.data.splits import Part, balance, hold_out_share, whole
from training.recipes.recipe import Recipe
from training.runs.data_reader import Reader
from training.runs.options import Options


@dataclass(frozen=True, slots=True)
class RunData:
    """The data sets of one run, preprocessed as for testing."""

    train_set: Dataset
    validation_set: Dataset | None  # the held-out images, if they have a folder of their own
    test_set: Dataset | None
    held_out: NDArray[np.int64]  # indices into the training set; empty with a validation set

    @property
    def kept(self) -> NDArray[np.int64]:
        """Return the indices of the training images, int64 (n,), in order."""
        return np.setdiff1d(np.arange(len(self.train_set)), self.held_out)

    @property
    def training_part(self) -> Part:
        """Return the images that are trained on."""
        return Part("train", self.train_set, self.kept)

    @property
    def held_out_part(self) -> Part:
        """Return the images that are not trained on."""
        if self.validation_set is not None:
            return whole("val", self.validation_set)
        return Part("val", self.train_set, self.held_out)

    @property
    def test_part(self) -> Part | None:
        """Return the test images, if there are any."""
        return None if self.test_set is None else whole("test", self.test_set)

    @property
    def parts(self) -> list[Part]:
        """Return all images of the run, by their purpose."""
        return [part for part in (self.training_part, self.held_out_part, self.test_part) if part is not None]

    def statistics(self, size: int, seed: int) -> Statistics:
        """Measure the channels of a fixed sample of the training images, `size` pixels square."""
        return measure(self.train_set.chosen(sample(self.kept, size, seed)))

    def facts(self) -> dict[str, Any]:
        """Return the entries of run.json for the data sets."""
        return {
            "labels": list(self.train_set.classes),
            "dataset": self.train_set.facts(),
            "validation_dataset": self.validation_set.facts() if self.validation_set else None,
            "test_dataset": self.test_set.facts() if self.test_set else None,
            "held_out": self.held_out.tolist(),
        }


def read_data(recipe: Recipe, options: Options, reader: Reader, earlier: dict[str, Any] | None) -> RunData:
    """Return the images of a run; `earlier` is run.json of a run that is resumed. Raises DataError."""
    train_set, validation_set, test_set = reader.parts(options.data, options.test_data, earlier or {})
    return RunData(train_set, validation_set, test_set, _held_out(recipe, train_set, validation_set, options.seed))


def _held_out(recipe: Recipe, train_set: Dataset, validation_set: Dataset | None, seed: int) -> NDArray[np.int64]:
    if validation_set is not None:
        return np.empty(0, np.int64)
    if recipe.held_out_share:
        return hold_out_share(train_set.labels, recipe.held_out_share, seed)
    # A tenth at most, so that a recipe made for many images leaves enough of a small set to train on.
    return stratified_hold_out(train_set.labels, min(recipe.held_out_images, len(train_set) // 10), seed)


def check_data(data: RunData, options: Options, recipe: Recipe, log: Callable[[str], None]) -> dict[str, Any]:
    """Log duplicates and, for runs that start from weights, class imbalance; return the entries of run.json."""
    duplicates = duplicates_in(data.parts, options.data)
    for line in duplicates.lines():
        log(line)
    counted = balance(data.train_set.classes, data.training_part.labels, data.held_out_part.labels)
    if recipe.weights is not None:
        for line in counted.lines(recipe.class_weights):
            log(line)
    return {"duplicates": duplicates.facts(), "balance": counted.facts()}
