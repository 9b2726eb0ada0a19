"""`train-resnet evaluate` on runs that are written here, without training."""

import csv
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from tests.support.runs.run_records import record_of
from tests.training.conftest import COLOURS, write_images
from training.cli import main
from training.data.crops import CropSpec
from training.data.dataset import load
from training.data.normalization import Normalize
from training.evaluation.crop_views import NAMES
from training.evaluation.evaluate import errors_of, logits_of
from training.networks.resnet import ResNet, build
from training.weights import checkpoint

MEAN, DEVIATION = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]


def network(classes: int = 3) -> ResNet:
    torch.manual_seed(0)
    model = build("resnet8", num_classes=classes)
    model.fc.weight.data.normal_(std=1.0)
    model.pixel_mean = torch.randn(3, 32, 32) / 10  # of the paper's recipe
    return model


def write_run(folder: Path, model: ResNet, labels: list[str]) -> Path:
    folder.mkdir()
    facts = record_of("resnet8", labels)
    facts["preprocessing"] |= {"mean": MEAN, "standard_deviation": DEVIATION}
    facts["dataset"] |= {"source": str(folder.parent / "colours")}
    (folder / "run.json").write_text(json.dumps(facts))
    checkpoint.save(folder, 7, model.state_dict(), {})
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", network(), sorted(COLOURS))


@pytest.fixture
def unseen(tmp_path: Path) -> Path:
    return write_images(tmp_path / "unseen", each=8, seed=1, side=40)


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


def written(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return facts


def test_the_centre_is_measured_as_training_measures_it(run: Path, unseen: Path) -> None:
    result = evaluate("--checkpoint", run, "--data", unseen)
    assert result.exit_code == 0, result.output
    facts = written(run / "evaluation" / "centre")
    dataset, normalize = load(unseen, CropSpec(32)), Normalize(MEAN, DEVIATION, "cpu")
    logits = logits_of(network(), dataset.images, lambda batch: normalize(batch).permute(0, 3, 1, 2))
    errors = errors_of(logits, torch.from_numpy(dataset.labels))
    assert facts["images"] == errors.images == 24 and facts["top5_error"] == 0
    assert facts["top1_error"] == pytest.approx(errors.top1) and facts["loss"] == pytest.approx(errors.loss, rel=1e-4)
    assert f"top-1 error {errors.top1:.2f}%" in result.stdout
    assert np.sum(facts["confusion_matrix"]) == 24
    assert [row["label"] for row in facts["classes"]] == sorted(COLOURS)
    assert np.diagonal(facts["confusion_matrix"]).sum() == round(24 * (1 - errors.top1 / 100))
    with Image.open(run / "evaluation" / "centre" / "confusion_matrix.png") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("views", NAMES)
def test_all_views_count_every_image_once_also_where_sizes_differ(
    run: Path, unseen: Path, tmp_path: Path, views: str
) -> None:
    Image.new("RGB", (70, 50), (9, 9, 9)).save(unseen / "red" / "wide.jpg")
    result = evaluate("--checkpoint", run, "--data", unseen, "--views", views, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    facts = written(tmp_path / "out")
    assert facts["views"]["name"] == views
    assert facts["images"] == 25 == np.sum(facts["confusion_matrix"])


def test_a_tar_a_checkpoint_folder_and_a_weights_file_give_the_same_numbers(
    run: Path, unseen: Path, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "unseen.tar", "w") as tar:
        tar.add(unseen, arcname="test")
    places = (run, run / "checkpoints" / "7", run / "checkpoints" / "7" / "weights.safetensors")
    for number, (place, data) in enumerate(zip(places, (unseen, tmp_path / "unseen.tar", unseen), strict=True)):
        assert evaluate("--checkpoint", place, "--data", data, "--out", tmp_path / str(number)).exit_code == 0
    assert len({written(tmp_path / str(number))["loss"] for number in range(3)}) == 1


def test_labels_are_matched_by_name_not_by_their_order(run: Path, unseen: Path, tmp_path: Path) -> None:
    model = network()
    order = [2, 0, 1]  # the same network, with its classes in another order
    for parameter in (model.fc.weight, model.fc.bias):
        parameter.data = parameter.data[order].clone()
    other = write_run(tmp_path / "other", model, [sorted(COLOURS)[index] for index in order])
    for place, out in ((run, "a"), (other, "b")):
        assert evaluate("--checkpoint", place, "--data", unseen, "--out", tmp_path / out).exit_code == 0
    assert written(tmp_path / "a")["top1_error"] == written(tmp_path / "b")["top1_error"]


def test_what_cannot_be_decoded_is_left_out_counted_and_listed(run: Path, unseen: Path, tmp_path: Path) -> None:
    (unseen / "red" / "broken.png").write_bytes(b"broken")
    result = evaluate("--checkpoint", run, "--data", unseen, "--out", tmp_path / "out")
    assert "skipped 1 files" in result.stderr and written(tmp_path / "out")["skipped"] == 1
    with (tmp_path / "out" / "skipped.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["file", "red/broken.png"]
    (unseen / "red" / "broken.png").unlink()
    evaluate("--checkpoint", run, "--data", unseen, "--out", tmp_path / "out")
    assert not (tmp_path / "out" / "skipped.csv").exists()


def test_too_many_undecodable_files_are_refused(run: Path, unseen: Path) -> None:
    (unseen / "red" / "broken.png").write_bytes(b"broken")
    result = evaluate("--checkpoint", run, "--data", unseen, "--max-skipped", "0.01")
    assert result.exit_code == 1 and "1 of 25 files cannot be used" in result.stderr


def test_what_the_runs_recipe_accepts_is_accepted_here_too(run: Path, unseen: Path) -> None:
    for index in range(10):
        (unseen / "red" / f"broken{index}.png").write_bytes(b"broken")
    assert evaluate("--checkpoint", run, "--data", unseen).exit_code == 1
    facts = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(facts | {"recipe": {"name": "finetune", "max_skipped": 0.5}}))
    assert "skipped 10 files" in evaluate("--checkpoint", run, "--data", unseen).stderr


def test_of_split_data_the_part_that_was_not_trained_on_is_taken(run: Path, unseen: Path, tmp_path: Path) -> None:
    shutil.move(unseen, tmp_path / "split" / "val")
    write_images(tmp_path / "split" / "train", each=2)
    result = evaluate("--checkpoint", run, "--data", tmp_path / "split")
    assert "is split; evaluating on val" in result.stderr
    assert written(run / "evaluation" / "centre")["images"] == 24


def test_images_that_were_trained_on_are_distinguished(run: Path, images: Path, unseen: Path) -> None:
    result = evaluate("--checkpoint", run, "--data", images)
    assert "was trained on these images" in result.stderr
    assert written(run / "evaluation" / "centre")["trained_on_these_pictures"] is True
    assert "was trained on these images" not in evaluate("--checkpoint", run, "--data", unseen).stderr


def test_of_the_runs_own_images_the_held_out_ones_lead(run: Path, images: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    held_out = [0, 5, 41, 42, 90, 119]
    (run / "run.json").write_text(json.dumps(facts | {"held_out": held_out}))
    result = evaluate("--checkpoint", run, "--data", images)
    assert "6 of these 120 images were held out of training; these count" in result.stderr
    found = written(run / "evaluation" / "centre")
    assert found["images"] == 6 and sum(measured["images"] for measured in found["classes"]) == 6
    assert sum(map(sum, found["confusion_matrix"])) == 6
    assert found["held_out"]["top1_error"] == found["top1_error"] and found["all_images"]["images"] == 120
    first, second = [line for line in result.stdout.splitlines() if "top-1" in line]
    assert first.endswith("6 held-out images")
    assert second == f"with the training images: top-1 error {found['all_images']['top1_error']:.2f}%, 120 images"


def test_images_that_were_trained_on_are_known_from_any_folder(
    run: Path, images: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts = json.loads((run / "run.json").read_text())
    facts["dataset"]["source"] = os.path.relpath(images, run.parent)  # as from where the run was started
    (run / "run.json").write_text(json.dumps(facts))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "was trained on these images" in evaluate("--checkpoint", run, "--data", images).stderr


def test_data_may_lack_a_class_and_that_is_said(run: Path, unseen: Path) -> None:
    shutil.rmtree(unseen / "red")
    result = evaluate("--checkpoint", run, "--data", unseen)
    assert result.exit_code == 0 and "no images of red" in result.stderr
    facts = written(run / "evaluation" / "centre")
    assert [measured["images"] > 0 for measured in facts["classes"]] == [True, True, False]


def test_data_with_other_classes_is_refused_in_one_line_that_names_them(run: Path, unseen: Path) -> None:
    (unseen / "red").rename(unseen / "pink")
    result = evaluate("--checkpoint", run, "--data", unseen)
    assert result.exit_code == 1
    assert "of the data only: pink; of the run only: red" in result.stderr.splitlines()[-1]


def test_what_is_no_run_is_refused_in_one_line(run: Path, unseen: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(run, tmp_path / "damaged")
    (damaged / "run.json").write_text('{"labels": 3}')
    changed = shutil.copytree(run, tmp_path / "changed")
    (changed / "run.json").write_text((run / "run.json").read_text().replace("resnet8", "resnet14"))
    cases = {
        tmp_path / "nothing": "there is no",
        unseen: "belongs to no run",
        damaged: "is not what train-resnet run writes",
        changed: "these are not the weights of resnet14: the file lacks layer1.1",
    }
    for place, words in cases.items():
        result = evaluate("--checkpoint", place, "--data", unseen)
        assert result.exit_code == 1 and words in result.stderr and result.stderr.count("\n") == 1


def test_missing_data_unknown_views_and_a_blocked_output_are_refused_in_one_line(
    run: Path, unseen: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    cases: dict[str, tuple[object, ...]] = {
        "there is no folder or tar file": ("--data", tmp_path / "nothing"),
        "no views are called 'all'": ("--data", unseen, "--views", "all"),
        "cannot write to": ("--data", unseen, "--out", tmp_path / "file" / "out"),
    }
    for words, arguments in cases.items():
        result = evaluate("--checkpoint", run, *arguments)
        assert result.exit_code == 1 and words in result.stderr and "Traceback" not in result.output


def test_a_network_that_diverged_is_refused(unseen: Path, tmp_path: Path) -> None:
    model = network()
    model.fc.bias.data.fill_(float("nan"))
    run = write_run(tmp_path / "diverged", model, sorted(COLOURS))
    result = evaluate("--checkpoint", run, "--data", unseen)
    assert result.exit_code == 1 and "not finite" in result.stderr
