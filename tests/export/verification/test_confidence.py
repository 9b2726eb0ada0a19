"""The score and the threshold of a card's confidence, measured on images that the network knows and does not know."""

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from export.verification.confidence import Unknown, auroc, measure_confidence
from export.verification.evaluation import answers_of
from export.verification.labelled_images import Evidence, LabelledImages
from service.engine.engine import Engine
from tests.export.test_cli import export_onnx
from tests.training.conftest import write_images
from training.cli import main as train

CLASSES = 4


class FakeEngine:
    """Its logits are the first row of an image's red values: logit c is pixel (0, c) minus 100, in tenths."""

    def __init__(self) -> None:
        self.images = 0  # that have passed

    def run(self, images: NDArray[np.uint8], outputs: Any) -> list[NDArray[Any]]:
        self.images += len(images)
        assert outputs == ("probabilities", "top_indices", "energy")
        logits = (images[:, 0, :CLASSES, 0].astype(np.float32) - 100) / 10
        energy = np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return [np.exp(logits - energy), np.argsort(-logits, axis=1), energy]


def images(logits: NDArray[np.float64]) -> NDArray[np.uint8]:
    pixels = np.zeros((len(logits), 4, 4, 3), np.uint8)
    pixels[:, 0, :, 0] = np.clip(logits * 10 + 100, 0, 255)
    return pixels


def known_and_unknown(
    seed: int, known: int = 400, unknown: int = 500
) -> tuple[LabelledImages, LabelledImages, Unknown]:
    """Known images have one high logit, unknown ones have four that are equally low."""
    random = np.random.default_rng(seed)

    def drawn() -> LabelledImages:
        labels = random.integers(0, CLASSES, known)
        logits = random.normal(0, 0.5, (known, CLASSES))
        logits[np.arange(known), labels] += 4
        return LabelledImages(images(logits), labels, "known")

    return drawn(), drawn(), Unknown(images(random.normal(0, 0.5, (unknown, CLASSES))), "others")


def measured(held_out: LabelledImages | None, test: LabelledImages | None, unknown: Unknown | None) -> Any:
    engine = cast(Engine, FakeEngine())
    answers = None if test is None else answers_of(engine, test.pixels)
    return measure_confidence(engine, Evidence(test, held_out), answers, unknown)


def test_each_image_passes_the_network_once() -> None:
    held_out, test, unknown = known_and_unknown(5, known=200, unknown=100)
    engine = FakeEngine()
    answers = answers_of(cast(Engine, engine), test.pixels)
    assert measure_confidence(cast(Engine, engine), Evidence(test, held_out), answers, unknown)
    assert engine.images == 200 + 200 + 100
    engine.images = 0
    assert measure_confidence(cast(Engine, engine), Evidence(test, test), answers, unknown)
    assert engine.images == 100


def test_the_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    random = np.random.default_rng(0)
    positives, negatives = random.integers(3, 9, 50).astype(float), random.integers(0, 7, 70).astype(float)
    pairs = (positives[:, None] > negatives).mean() + (positives[:, None] == negatives).mean() / 2
    found = auroc(positives, negatives)
    assert found.value == pytest.approx(pairs)
    assert found.low < found.value < found.high
    assert auroc(positives + 100, negatives) == auroc(positives, negatives - 100)
    assert auroc(positives + 100, negatives).value == 1.0
    assert auroc(positives, positives).value == 0.5


def test_the_interval_of_the_auroc_holds_the_truth_nineteen_times_of_twenty() -> None:
    random = np.random.default_rng(0)
    truth = 0.760250  # of two normal distributions, one standard deviation apart
    found = [auroc(random.normal(1, 1, 80), random.normal(0, 1, 60)) for _ in range(1000)]
    assert 0.93 < np.mean([one.low <= truth <= one.high for one in found]) < 0.97


def test_five_of_a_hundred_known_images_fall_below_the_threshold() -> None:
    held_out, test, unknown = known_and_unknown(0)
    found = measured(held_out, test, unknown)
    logits = (held_out.pixels[:, 0, :, 0].astype(np.float32) - 100) / 10
    scores = {
        "energy": np.log(np.exp(logits).sum(axis=1)),
        "largest_logit": logits.max(axis=1),
        "largest_probability": np.exp(logits.max(axis=1)) / np.exp(logits).sum(axis=1),
    }[found.score]
    assert np.mean(scores < found.threshold - 1e-5) == pytest.approx(0.05, abs=0.01)
    assert found.known_images == 400


def test_unknown_images_are_compared_with_test_images_and_a_fifth_of_them_only_chooses_the_score() -> None:
    held_out, test, unknown = known_and_unknown(1)
    found = measured(held_out, test, unknown)
    assert (found.compared_known_images, found.compared_unknown_images, found.unknown) == (400, 400, "others")
    low, high = found.auroc_interval
    assert 0.99 < low <= found.auroc <= high <= 1
    shorter = LabelledImages(test.pixels[:300], test.labels[:300], "test")
    assert measured(held_out, shorter, unknown).compared_known_images == 300
    assert measured(held_out, None, unknown).compared_known_images == 400


@pytest.mark.parametrize("score", ["energy", "largest_probability"])
def test_the_score_is_the_one_that_separates_the_unknown_images(score: str) -> None:
    held_out, test, _ = known_and_unknown(2)
    logits = {
        "energy": np.tile([-1.0, -5.0, -5.0, -5.0], (500, 1)),  # as sure as of known images, with low logits
        "largest_probability": np.full((500, CLASSES), 8.0),  # high logits for all classes alike
    }[score]
    found = measured(held_out, test, Unknown(images(logits), "others"))
    assert found.score == score
    assert found.auroc > 0.95


def test_without_unknown_images_the_score_separates_right_answers_from_wrong_ones() -> None:
    held_out, test, _ = known_and_unknown(3)
    found = measured(held_out, test, None)
    assert (found.auroc, found.auroc_interval, found.unknown, found.known_images) == (None, None, None, 400)
    only_right = LabelledImages(held_out.pixels, held_out.pixels[:, 0, :, 0].argmax(axis=1), "right")
    assert measured(only_right, test, None).score == "largest_probability"


def test_few_held_out_images_give_no_threshold() -> None:
    held_out, test, unknown = known_and_unknown(4, known=99)
    assert measured(held_out, test, unknown) is None
    assert measured(None, test, unknown) is None


def test_an_export_with_held_out_images_has_a_confidence(tmp_path: Path) -> None:
    data = write_images(tmp_path / "colours" / "train", each=400)
    unknown = write_images(tmp_path / "others", each=10, seed=5)
    run = tmp_path / "run"
    options = ["--recipe", "modern-resnet20", "--steps", "1", "--precision", "fp32", "--compile", "off"]
    options += ["--set", "held_out_images=120", "--data", str(data), "--out", str(run)]
    outcome = CliRunner().invoke(train, ["run", *options])
    assert outcome.exit_code == 0, outcome.output
    result = export_onnx("--checkpoint", run, "--unknown", unknown, "--output", "model.onnx")
    assert result.exit_code == 0, result.output
    assert "which 95% of 120 held-out images reach; AUROC 0." in result.stdout
    found = json.loads(export_onnx("inspect", "model.onnx", "--format", "json").stdout)["card"]["confidence"]
    assert (found["known_images"], found["compared_unknown_images"], found["unknown"]) == (120, 24, "others")
    assert "confident" in export_onnx("inspect", "model.onnx").stdout


def test_a_folder_of_unknown_images_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    for path, fault in ((tmp_path / "none", "there is no folder"), (tmp_path, "holds no image that can be decoded")):
        result = export_onnx("--depth", 8, "--weights", "random", "--unknown", path, "--output", "model.onnx")
        assert result.exit_code == 1
        assert fault in result.output and "--unknown" in result.output
        assert not Path("model.onnx").exists()
