"""Images that were trained on never count for accuracy, wherever they lie; those of a run count while unchanged."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from export.errors import ExportError
from export.sources.network_spec import NetworkSpec
from export.sources.sample_images import to_pixels
from export.sources.trained import default_preprocessing, from_random_weights, from_run
from export.verification.labelled_images import LabelledImages, class_names, find_evidence
from service.images.preprocessing import Resizer, installed_resizers
from tests.export.conftest import Trained, copy_run
from tests.training.conftest import write_images
from training.data.crops import CropSpec
from training.data.dataset import load
from training.runs.record import DatasetRecord


def silent(_line: str) -> None:
    pass


def test_parity_images_come_from_all_over_the_data_set() -> None:
    pixels = np.arange(200, dtype=np.uint8).reshape(200, 1, 1, 1).repeat(3, axis=3)
    chosen = LabelledImages(pixels, np.zeros(200, np.int64), "").spread()[:, 0, 0, 0]
    assert len(chosen) == len(set(chosen)) == 64
    assert (chosen[0], chosen[-1]) == (0, 199)
    assert len(LabelledImages(pixels[:3], np.zeros(3, np.int64), "").spread()) == 3


def test_by_default_the_runs_own_test_set_and_held_out_images_count(trained: Trained) -> None:
    evidence = find_evidence(from_run(trained.run, NetworkSpec(), None), None, silent)
    assert evidence.test is not None and evidence.held_out is not None
    assert (len(evidence.test.labels), evidence.test.name) == (15, "colours (test)")
    assert (len(evidence.held_out.labels), evidence.held_out.name) == (12, "colours (train), held out of training")
    assert sorted(evidence.held_out.labels.tolist()) == [0] * 4 + [1] * 4 + [2] * 4


def test_given_images_count_instead_of_the_runs(trained: Trained, tmp_path: Path) -> None:
    others = write_images(tmp_path / "others", each=2, seed=5)
    evidence = find_evidence(from_run(trained.run, NetworkSpec(), None), others, silent)
    assert evidence.test is not None and evidence.held_out is not None
    assert (len(evidence.test.labels), evidence.test.name) == (6, "others (others)")
    assert len(evidence.held_out.labels) == 12


def test_of_the_training_images_only_the_held_out_ones_count(trained: Trained) -> None:
    said: list[str] = []
    evidence = find_evidence(from_run(trained.run, NetworkSpec(), None), trained.train_set, said.append)
    assert evidence.test is not None and evidence.test is evidence.held_out
    assert any("held out" in line for line in said)


@pytest.mark.skipif(len(installed_resizers()) == 1, reason="cykooz-resizer is not installed")
@pytest.mark.parametrize("resizer", installed_resizers())
def test_training_images_are_known_again_whichever_resizer_the_run_used(
    trained: Trained, tmp_path: Path, resizer: Resizer
) -> None:
    large = write_images(tmp_path / "large", each=4, side=75)
    seen = load(large, CropSpec(32, resizer=resizer))
    facts = DatasetRecord(name="large", source=large, images=len(seen), fingerprint=seen.fingerprint)
    source = dataclasses.replace(
        from_run(trained.run, NetworkSpec(), None), train_set=facts, held_out=(0, 5, 9), resizer=resizer
    )
    evidence = find_evidence(source, large, silent)
    assert evidence.test is not None and evidence.test is evidence.held_out and len(evidence.test.labels) == 3
    usual = load(large, CropSpec(32))
    np.testing.assert_array_equal(evidence.test.pixels[1], usual.images[5])  # measured as it will be served


def test_training_images_of_a_resizer_that_is_missing_are_refused(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.images.simd_resizing.rust", None)
    source = dataclasses.replace(from_run(trained.run, NetworkSpec(), None), resizer="cykooz-resizer")
    with pytest.raises(ExportError, match="cykooz-resizer, which is not installed; install it"):
        find_evidence(source, write_images(tmp_path / "others", each=2, seed=5), silent)


def test_a_run_that_records_no_resizer_counts_as_pillows(trained: Trained, tmp_path: Path) -> None:
    run = copy_run(trained, tmp_path / "run")
    facts = json.loads((run / "run.json").read_text())
    assert from_run(run, NetworkSpec(), None).resizer == facts.pop("resizer") == installed_resizers()[0]
    (run / "run.json").write_text(json.dumps(facts))
    assert from_run(run, NetworkSpec(), None).resizer == "pillow"


def test_training_images_without_held_out_ones_are_refused(trained: Trained, tmp_path: Path) -> None:
    run = copy_run(trained, tmp_path / "run")
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"held_out": []}))
    with pytest.raises(ExportError, match="was trained on all images"):
        find_evidence(from_run(run, NetworkSpec(), None), trained.train_set, silent)


def test_images_that_are_gone_or_have_changed_do_not_count(trained: Trained, tmp_path: Path) -> None:
    run = copy_run(trained, tmp_path / "run")
    facts = json.loads((run / "run.json").read_text())
    facts["dataset"]["source"] = str(tmp_path / "gone")
    facts["test_dataset"]["fingerprint"] = "0" * 64
    (run / "run.json").write_text(json.dumps(facts))
    said: list[str] = []
    evidence = find_evidence(from_run(run, NetworkSpec(), None), None, said.append)
    assert evidence.test is evidence.held_out is None
    assert any("no longer there" in line for line in said)
    assert any("has changed since the run" in line for line in said)


def test_images_of_other_classes_are_refused(trained: Trained, tmp_path: Path) -> None:
    others = write_images(tmp_path / "others", each=2)
    (others / "red").rename(others / "violet")
    with pytest.raises(ExportError, match="number 2 is 'violet', not 'red'"):
        find_evidence(from_run(trained.run, NetworkSpec(), None), others, silent)
    (others / "zebra").mkdir()
    (others / "violet").rename(others / "red")
    (others / "blue" / "0.png").rename(others / "zebra" / "0.png")
    with pytest.raises(ExportError, match="4 classes that are not the network's 3"):
        find_evidence(from_run(trained.run, NetworkSpec(), None), others, silent)


def test_data_that_cannot_be_used_is_one_line(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="there is no folder or tar file"):
        find_evidence(from_run(trained.run, NetworkSpec(), None), tmp_path / "absent", silent)


def test_as_many_undecodable_files_are_accepted_as_by_the_runs_recipe(trained: Trained, tmp_path: Path) -> None:
    images = write_images(tmp_path / "mixed", each=2)
    for index in range(4):
        (images / "red" / f"broken{index}.png").touch()
    source = from_run(trained.run, NetworkSpec(), None)
    with pytest.raises(ExportError, match="4 of 10 files cannot be used"):
        find_evidence(source, images, silent)
    tolerant = find_evidence(dataclasses.replace(source, max_skipped=0.5), images, silent)
    assert tolerant.test is not None and len(tolerant.test.labels) == 6


def test_larger_networks_see_images_as_the_service_would_cut_them(tmp_path: Path) -> None:
    images = write_images(tmp_path / "large", each=1, side=300)
    source = from_random_weights(NetworkSpec(depth=8), ["blue", "green", "red"], seed=0)
    large = default_preprocessing(NetworkSpec(depth=18).architecture())
    assert class_names(images, NetworkSpec(depth=18).architecture(), silent) == source.labels
    evidence = find_evidence(dataclasses.replace(source, preprocessing=large), images, silent)
    assert evidence.test is not None
    assert evidence.test.pixels.shape == (3, 224, 224, 3)
    (expected,) = to_pixels([(images / "blue" / "0.png").read_bytes()], large)
    np.testing.assert_array_equal(evidence.test.pixels[0], expected)


def test_images_are_resized_as_the_network_wants_them(tmp_path: Path) -> None:
    images = write_images(tmp_path / "large", each=1, side=50)
    source = from_random_weights(NetworkSpec(depth=8), ["blue", "green", "red"], seed=0)
    for interpolation in ("bilinear", "bicubic"):
        wanted = source.preprocessing.model_copy(update={"interpolation": interpolation})
        evidence = find_evidence(dataclasses.replace(source, preprocessing=wanted), images, silent)
        assert evidence.test is not None
        (expected,) = to_pixels([(images / "blue" / "0.png").read_bytes()], wanted)
        np.testing.assert_array_equal(evidence.test.pixels[0], expected)


@pytest.mark.parametrize("folders", [("n02", "n03"), ("wolf", "hen")])
def test_of_imagenet_some_classes_will_do_under_names_or_synset_ids(tmp_path: Path, folders: tuple[str, str]) -> None:
    images = write_images(tmp_path / "pictures", each=2)
    shutil.rmtree(images / "red")
    for old, new in zip(("blue", "green"), folders, strict=True):
        (images / old).rename(images / new)
    source = from_random_weights(NetworkSpec(depth=8), ["tench", "hen", "wolf"], seed=0)
    source = dataclasses.replace(source, synsets=("n01", "n02", "n03"))
    evidence = find_evidence(source, images, silent)
    assert evidence.test is not None
    np.testing.assert_array_equal(evidence.test.labels, [1, 1, 2, 2])
    with pytest.raises(ExportError, match="classes that are not the network's"):
        find_evidence(
            dataclasses.replace(source, synsets=("n01", "n04", "n05"), labels=("a", "b", "c")), images, silent
        )
