from pathlib import Path

import pytest
import torch
from PIL import Image

from training.evaluation.class_metrics import balanced_accuracy, class_measures, confusion_matrix, draw_confusion_matrix

# Three cats (two right), one dog (taken for a cat), two emus (right).
LABELS, CHOSEN = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 0, 2, 0, 2, 2])


def test_rows_are_true_classes_and_columns_the_chosen_ones() -> None:
    assert confusion_matrix(CHOSEN, LABELS, 4).tolist() == [[2, 0, 1, 0], [1, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]


def test_precision_recall_and_f1_of_each_class_are_as_counted_by_hand() -> None:
    cat, dog, emu = class_measures(confusion_matrix(CHOSEN, LABELS, 3), ["cat", "dog", "emu"])
    assert (cat.label, cat.images, dog.images, emu.images) == ("cat", 3, 1, 2)
    assert (cat.precision, cat.recall, cat.f1) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert (dog.precision, dog.recall, dog.f1) == (0, 0, 0)  # never chosen
    assert (emu.precision, emu.recall, emu.f1) == pytest.approx((2 / 3, 1, 0.8))


def test_balanced_accuracy_is_the_mean_recall_of_the_classes_that_have_images() -> None:
    assert balanced_accuracy(confusion_matrix(CHOSEN, LABELS, 4)) == pytest.approx((2 / 3 + 0 + 1) / 3)


@pytest.mark.parametrize("classes", [2, 30, 120])
def test_the_image_of_a_matrix_is_dark_on_the_diagonal_of_a_network_that_is_right(tmp_path: Path, classes: int) -> None:
    names = [f"$_{index}^ 猫 {'x' * index}" for index in range(classes)]  # no formula, no font has all, some are long
    right = torch.eye(classes, dtype=torch.int64)
    for name, matrix in (("right", right), ("wrong", right.roll(1, 0))):
        draw_confusion_matrix(matrix, names, tmp_path / f"{name}.png", "$x_")
    with Image.open(tmp_path / "right.png") as good, Image.open(tmp_path / "wrong.png") as bad:
        assert good.format == "PNG" and good.size == bad.size
        assert good.tobytes() != bad.tobytes()
