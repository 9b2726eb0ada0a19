"""Accuracy counts every image once; an answer that is not a number is wrong; the temperature mends overconfidence."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from export.graph.to_onnx import Normalize
from export.sources.network_spec import NetworkSpec
from export.sources.trained import from_random_weights
from export.verification.evaluation import Answers, accuracy_of, answers_of, calibrate, with_own_error
from export.verification.labelled_images import LabelledImages
from service.model_files.card import Calibration
from training.evaluation.evaluate import expected_calibration_error


class ReadsTheFirstPixels:
    """An engine whose best classes are what the first five values of each image say."""

    def run(self, images: NDArray[np.uint8], outputs: tuple[str, ...]) -> list[NDArray[Any]]:
        first = images.reshape(len(images), -1)[:, :5]
        values = {
            "probabilities": np.where(first == 255, np.nan, 0.1).astype(np.float32),
            "top_indices": first.astype(np.int64),
            "energy": -first[:, :1].astype(np.float32),
        }
        return [values[name] for name in outputs]


def test_accuracy_is_the_share_of_images_whose_label_is_first_or_among_five() -> None:
    pixels = np.zeros((70, 2, 2, 3), np.uint8)
    pixels.reshape(70, -1)[:, :5] = (7, 6, 5, 4, 3)
    labels = np.array([7] * 40 + [3] * 20 + [9] * 10)
    answers = answers_of(ReadsTheFirstPixels(), pixels)  # type: ignore[arg-type]
    accuracy = accuracy_of(answers, LabelledImages(pixels, labels, "made up"), "CPUExecutionProvider")
    assert accuracy.top1 == pytest.approx(40 / 70)
    assert accuracy.top5 == pytest.approx(60 / 70)
    assert (accuracy.images, accuracy.dataset, accuracy.provider) == (70, "made up", "CPUExecutionProvider")


def test_an_answer_that_is_not_a_number_is_never_right() -> None:
    pixels = np.zeros((3, 2, 2, 3), np.uint8)
    pixels[1, 0, 0, 1] = 255
    answers = answers_of(ReadsTheFirstPixels(), pixels)  # type: ignore[arg-type]
    assert answers.best[:, 0].tolist() == [0, -1, 0]


def test_calibration_finds_the_temperature_that_mends_overconfidence() -> None:
    source = from_random_weights(NetworkSpec(depth=8), ["a", "b", "c"], seed=0)
    pixels = np.random.default_rng(0).integers(0, 256, (600, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        source.network.fc.weight.mul_(3)  # three times as sure as the labels below deserve
        logits = source.network(Normalize(source.preprocessing)(torch.from_numpy(pixels)))
        deserved = torch.softmax(logits / 3, dim=1)
        labels = torch.multinomial(deserved, 1, generator=torch.Generator().manual_seed(0))[:, 0]
    calibration = calibrate(source, LabelledImages(pixels, labels.numpy(), "held out"))
    assert calibration.temperature == pytest.approx(3, rel=0.25)
    assert calibration.images == 600
    assert calibration.expected_calibration_error < expected_calibration_error(torch.softmax(logits, dim=1), labels)


def test_answers_hold_the_energy_unless_the_file_has_none() -> None:
    pixels = np.arange(40, dtype=np.uint8).reshape(40, 1, 1, 1).repeat(12, axis=1).repeat(3, axis=3)
    energy = answers_of(ReadsTheFirstPixels(), pixels).energy  # type: ignore[arg-type]
    assert energy is not None and energy[:, 0].tolist() == [-value for value in range(40)]
    assert answers_of(ReadsTheFirstPixels(), pixels, with_energy=False).energy is None  # type: ignore[arg-type]


def test_the_calibration_error_of_a_reduced_file_is_that_of_its_own_probabilities() -> None:
    of_fp32 = Calibration(temperature=1.5, expected_calibration_error=0.01, images=4)
    probabilities = np.array([[0.8, 0.2]] * 4, np.float32)
    images = LabelledImages(np.zeros((4, 1, 1, 3), np.uint8), np.array([0, 0, 1, 1]), "half right")
    found = with_own_error(of_fp32, Answers(probabilities, np.zeros((4, 1), np.int64)), images)
    assert found.expected_calibration_error == pytest.approx(0.3)  # 80% sure, 50% right
    assert (found.temperature, found.images) == (1.5, 4)
