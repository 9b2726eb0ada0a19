"""Metrics of each class: precision, recall, F1, balanced accuracy, and the confusion matrix.

All are computed from one matrix: rows are the true classes, columns the predicted ones. A ratio with denominator zero
(the precision of a class that was never predicted) is 0, as in scikit-learn.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_MOST_CLASSES_WITH_NUMBERS, _MOST_CLASSES_WITH_NAMES = 25, 100
_LONGEST_NAME = 24  # letters that fit beside the matrix


@dataclass(frozen=True, slots=True)
class ClassMeasures:
    """One class: its number of images, and its metrics as fractions of 1."""

    label: str
    images: int
    precision: float
    recall: float
    f1: float


def confusion_matrix(chosen: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return how many images of class i were predicted as class j, int64 (num_classes, num_classes)."""
    return torch.bincount(labels * num_classes + chosen, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_measures(matrix: Tensor, names: Sequence[str]) -> list[ClassMeasures]:
    """Return the metrics of each class, in the order of the labels, from a confusion matrix int64 (C, C)."""
    right, images, chosen = matrix.diagonal().double(), matrix.sum(1), matrix.sum(0)
    precision = (right / chosen).nan_to_num(0)
    recall = (right / images).nan_to_num(0)
    f1 = (2 * right / (images + chosen)).nan_to_num(0)
    columns = (names, images.tolist(), precision.tolist(), recall.tolist(), f1.tolist())
    return [ClassMeasures(*row) for row in zip(*columns, strict=True)]


def balanced_accuracy(matrix: Tensor) -> float:
    """Return the mean recall of the classes that have images, from a confusion matrix int64 (C, C)."""
    images = matrix.sum(1)
    return float((matrix.diagonal().double()[images > 0] / images[images > 0]).mean())


def draw_confusion_matrix(matrix: Tensor, names: Sequence[str], path: Path, title: str) -> None:
    """Write a PNG: the share of each true class (row) that was predicted as each class (column)."""
    from matplotlib.figure import Figure  # slow, and needed only here

    classes = len(names)
    side = min(4 + 0.45 * classes, 16)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    shares = (matrix / matrix.sum(1, keepdim=True)).nan_to_num(0)
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class")
    axes.set(xlabel="chosen", ylabel="true")
    axes.set_title(title, parse_math=False)
    if classes <= _MOST_CLASSES_WITH_NAMES:
        short = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
        size = max(4.0, min(9.0, 400 / classes))
        axes.set_xticks(range(classes), short, rotation=90, fontsize=size, parse_math=False)
        axes.set_yticks(range(classes), short, fontsize=size, parse_math=False)
    if classes <= _MOST_CLASSES_WITH_NUMBERS:
        for row, counts in enumerate(matrix.tolist()):
            for column, count in enumerate(counts):
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, str(count), ha="center", va="center", fontsize=7, color=colour)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks are drawn as boxes
        figure.savefig(path, format="png", dpi=120)
