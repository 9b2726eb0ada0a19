"""Whatever a refusal advises works when it is followed: the words are taken out of the message and run."""

import os
import re
import shlex
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from tests.support.image_files.image_trees import as_tar, classes_in, image_bytes, write_images
from tests.training.weights.test_conversion import settled
from training.cli import main

Train = Callable[..., Result]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    torch.save(dict(settled("resnet8").state_dict()), folder / "resnet8.pth")
    return folder / "resnet8.pth"


@pytest.fixture
def train(weights: Path, tmp_path: Path) -> Train:
    """Trains for a step on a folder, and returns what was said."""

    def run(data: Path, *options: str | Path) -> Result:
        out = tmp_path / "run"
        shutil.rmtree(out, ignore_errors=True)
        fixed = ("--precision", "fp32", "--compile", "off", "--steps", "1", "--set", "crop=pad")
        start = () if "--weights" in options else ("--weights", weights)
        command = ("run", "--recipe", "finetune", "--data", data, "--out", out, *fixed, *start, *options)
        return CliRunner().invoke(main, [str(word) for word in command])

    return run


def refused(result: Result) -> str:
    assert result.exit_code == 1, result.output
    return result.output.strip().splitlines()[-1]


def advised(line: str, pattern: str) -> list[str]:
    """Return the words that a line advises to give."""
    found = re.search(pattern, line)
    assert found, line
    return shlex.split(found[1])


def works(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.output


def test_without_a_part_to_train_on_the_others_can_be_given(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", classes_in("set/val", "set/test", names=("a", "b", "c")))
    for source in (data, as_tar(data)):
        line = refused(train(source))
        _, first, *others = advised(line, r"(--data .*)$")
        works(train(Path(first), *others))


def test_sub_folders_that_are_the_classes_can_be_given(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", classes_in("animals", "plants"))
    line = works(train(data))
    _, inner = advised(line, r"give (--data \S+)")
    assert "cat 1 + 1, dog 1 + 1" in works(train(Path(inner)))


def test_one_image_a_class_simply_trains_and_says_that_nothing_is_held_out(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", classes_in(".", names="abcd", each=1))
    output = works(train(data))
    assert "no class has a second image that could be held out: the last weights are kept, not the best" in output
    assert "the best weights" not in output
    out = tmp_path / "run"
    resumed = CliRunner().invoke(
        main,
        f"run --recipe finetune --data {data} --out {out} --precision fp32 --compile off --steps 1 --set crop=pad "
        f"--weights {tmp_path / 'weights' / 'resnet8.pth'} --resume".split(),
    )
    works(resumed)


@pytest.mark.parametrize("wanted", ["choose_best=error", "early_stopping_patience=2"])
def test_a_choice_that_was_asked_for_but_cannot_be_made_is_refused_with_what_helps(
    train: Train, tmp_path: Path, wanted: str
) -> None:
    data = write_images(tmp_path / "data", classes_in(".", names="abcd", each=1))
    line = refused(train(data, "--set", wanted))
    works(train(data, "--set", wanted, *advised(line, r"or (--set .*)$")))
    write_images(data, ["a/second.png"])
    works(train(data, "--set", wanted))


def test_for_a_recipe_without_held_out_images_the_error_names_the_option(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", classes_in(".", each=4))
    line = refused(train(data, "--set", "held_out_share=0"))
    works(train(data, "--set", "held_out_share=0", *advised(line, r"(--set held_out_share=\S+)$")))


def test_too_many_undecodable_files_can_be_allowed(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", [*classes_in("."), *(f"cat/{index}.txt" for index in range(7))])
    line = refused(train(data))
    assert "7 of 11 files" in line
    works(train(data, *advised(line, r"(--max-skipped 0\.64)")))


@pytest.mark.parametrize("content", [b"notes", b"\x00\x00\x00\x18ftypheic"])
def test_a_class_of_undecodable_files_is_named_with_one_of_its_own(
    train: Train, tmp_path: Path, content: bytes
) -> None:
    data = write_images(tmp_path / "data", ["ant/0.txt", *classes_in(".", names=("ant", "cat", "dog", "zebra"))])
    for file in (data / "dog").iterdir():
        file.write_bytes(content)
    line = refused(train(data))
    assert "no image of class 'dog' can be decoded; the first is dog/0.png" in line
    assert "put images that can be into its folder, or move the folder away" in line
    (data / "dog" / "new.png").write_bytes(image_bytes("new"))
    works(train(data, "--max-skipped", "0.5"))
    shutil.move(data / "dog", tmp_path / "away")
    works(train(data))


def test_an_empty_class_can_be_removed_or_filled(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", classes_in("."))
    (data / "empty").mkdir()
    assert "put images into it or remove it" in refused(train(data))
    (data / "empty").rmdir()
    works(train(data))


def test_images_that_lie_directly_in_the_data_can_be_moved(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", ["1.png", "2.png"])
    assert "put those of each class into a folder named after it" in refused(train(data))
    for number, name in ((1, "cat"), (2, "dog")):
        (data / name).mkdir()
        (data / f"{number}.png").rename(data / name / "1.png")
    works(train(data))


def test_a_single_class_folder_is_told_to_go_up(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", classes_in("only", names=("cat",)) + classes_in("only2", names=("dog",)))
    line = refused(train(data / "only"))
    assert "has only one class folder, 'cat'" in line and "give the folder that holds one folder a class" in line
    write_images(data / "only", ["dog/1.png"])
    works(train(data / "only"))


def test_classes_that_are_not_trained_on_are_named_with_what_helps(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", [*classes_in("train"), *classes_in("val", names=("bird", "cat", "cow"))])
    line = refused(train(data))
    assert "'bird', 'cow' (it lacks 'dog'); put some into the training folder, or rename or remove these" in line
    shutil.rmtree(data / "val" / "cow")
    write_images(data, ["train/bird/9.png"])
    works(train(data))


def test_parts_that_lack_classes_are_taken_and_said(train: Train, tmp_path: Path) -> None:
    paths = classes_in("train", names=("bird", "cat", "dog")) + classes_in("val") + ["test/dog/7.png"]
    output = works(train(write_images(tmp_path / "data", paths)))
    assert "val has no images of bird" in output and "test has no images of bird, cat" in output
    assert "test error" in output
    output = works(train(tmp_path / "data" / "train", "--test-data", tmp_path / "data" / "test"))
    assert "test has no images of bird, cat" in output


def test_a_test_part_without_labels_is_left_aside(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", [*classes_in("train", each=4), "test/1.png", "test/2.png"])
    output = works(train(data))
    assert f"{data / 'test'} is left aside" in output and "test error" not in output
    line = refused(train(data, "--test-data", data / "test"))
    assert "the images lie directly in" in line


def test_archives_are_taken_as_their_unpacked_folders_are(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", classes_in("a/b/train", "a/b/val"))
    works(train(as_tar(data)))
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as file:
        for path in data.rglob("*.png"):
            file.write(path, path.relative_to(data))
    works(train(tmp_path / "data.zip"))
    shutil.unpack_archive(tmp_path / "data.zip", tmp_path / "unpacked")
    works(train(tmp_path / "unpacked"))


def test_a_compressed_tar_that_is_to_be_streamed_is_told_to_be_unpacked(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", classes_in("train", "val"))
    with tarfile.open(tmp_path / "data.tgz", "w:gz") as file:
        file.add(data, arcname="data")
    assert "unpack it and give its folder" in refused(train(tmp_path / "data.tgz", "--reading", "streamed"))
    with tarfile.open(tmp_path / "data.tgz") as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    works(train(tmp_path / "unpacked", "--reading", "streamed"))


def test_a_folder_that_is_not_in_a_tar_can_be_left_out(train: Train, tmp_path: Path) -> None:
    tar = as_tar(write_images(tmp_path / "data", classes_in("train", "val")))
    line = refused(train(tar / "training"))
    _, alone = advised(line, r"give (--data \S+) alone")
    works(train(Path(alone)))


def test_a_missing_folder_says_what_is_needed(train: Train, tmp_path: Path) -> None:
    line = refused(train(tmp_path / "nothing"))
    assert "give the folder that holds one folder a class" in line
    works(train(write_images(tmp_path / "data", classes_in("."))))


def test_a_class_whose_name_is_not_utf_8_can_be_renamed(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", classes_in("."))
    os.rename(data / "cat", os.fsencode(data) + b"/caf\xe9")
    assert "is not UTF-8; rename it" in refused(train(data))
    os.rename(os.fsencode(data) + b"/caf\xe9", data / "café")
    works(train(data))


def test_a_folder_of_weights_names_the_file_to_give(train: Train, weights: Path, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", classes_in("."))
    line = refused(train(data, "--weights", weights.parent))
    works(train(data, "--weights", *advised(line, r"such as (\S+)$")))


def test_another_network_can_be_left_out(train: Train, tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", classes_in("."))
    line = refused(train(data, "--set", "network=resnet14"))
    assert "or leave out --set network to train the resnet8 that this is" in line
    works(train(data))


def test_a_file_without_a_last_layer_becomes_a_model_as_export_advises(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from export.errors import ExportError
    from export.sources.network_spec import NetworkSpec
    from export.sources.pretrained import from_file

    monkeypatch.chdir(tmp_path)
    body = {name: tensor for name, tensor in torch.load(weights).items() if not name.startswith("fc.")}
    torch.save({"state_dict": body}, tmp_path / "body.pth")
    with pytest.raises(ExportError, match="has no last layer") as refusal:
        from_file(tmp_path / "body.pth", NetworkSpec(), None, None, lambda _line: None)
    command = advised(str(refusal.value), r"with train-resnet (run .*)$")
    write_images(tmp_path / "FOLDER", classes_in("."))
    works(CliRunner().invoke(main, [*command, "--steps", "1", "--set", "crop=pad", "--compile", "off"]))
