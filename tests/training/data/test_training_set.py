"""What a step sees of streamed images: a pure function of seed and step, the same as packed ones where those fit."""

import contextlib
import dataclasses
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from service.images.preprocessing import usual_resizer
from tests.support.image_files.jpeg_trees import write_jpegs
from tests.training.runs.test_run import RECIPE
from training.augmentation.batch_transforms import batch_indices
from training.data.crops import CropSpec
from training.data.dataset import load
from training.data.decoder_pool import Decoders
from training.data.decoder_process import Decoded
from training.data.normalization import Normalize
from training.data.training_set import Packed, Pixels, Streamed, TrainingImages, crop_for_training
from training.data_files.listing import DataError, Place
from training.hardware.devices import choose
from training.hardware.process_group import World
from training.recipes.recipe import Recipe
from training.runs import data_reader as reader
from training.runs.options import Options
from training.runs.progress import Progress
from training.runs.run import run
from training.weights.checkpoint import load_latest

PAPER = dataclasses.replace(
    RECIPE, crop="scale_jitter", scale_range=(36, 60), pca_colour=0.1, flip="random", image_size=32, batch_size=16
)
MODERN = dataclasses.replace(PAPER, crop="random_resized", pca_colour=0.0, trivial_augment=True, random_erasing=0.5)
PADDED = dataclasses.replace(RECIPE, crop="pad", flip="alternating", batch_size=16)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jpegs(tmp_path_factory.mktemp("jpegs") / "tree", each=67)


def places(tree: Path) -> list[Place]:
    return [Place(str(path)) for path in sorted(tree.rglob("*.jpg"))]


@contextlib.contextmanager
def streamed(tree: Path, recipe: Recipe, count: int, seed: int = 5) -> Iterator[Streamed]:
    with contextlib.closing(Decoders(count)) as decoders:
        crop = crop_for_training(recipe, usual_resizer())
        yield Streamed(places(tree), crop, decoders, "cpu", seed, recipe.batch_size)


def batches(pixels: Pixels, recipe: Recipe, steps: Sequence[int], world: World | None = None) -> list[Tensor]:
    normalize = Normalize([0.4, 0.4, 0.4], [0.2, 0.2, 0.2], "cpu")
    images = TrainingImages(torch.zeros(201, dtype=torch.int64), pixels, normalize, recipe)
    found = []
    for step in steps:
        indices = batch_indices(5, step, 201, recipe.batch_size)
        part = (world or World()).part(len(indices))
        found.append(images.batch(indices, 5, step // 12, step, part))
    return found


def test_the_mean_image_moves_with_the_image_that_is_cropped_and_mirrored() -> None:
    mean = torch.arange(8 * 8 * 3, dtype=torch.uint8).reshape(1, 8, 8, 3)
    normalize = Normalize([0.4, 0.4, 0.4], [0.2, 0.2, 0.2], "cpu")
    recipe = dataclasses.replace(PADDED, image_size=8, crop_padding=2, flip="random")
    subtracted = normalize(mean)[0].permute(2, 0, 1)
    same = Packed(mean.expand(16, 8, 8, 3))
    images = TrainingImages(torch.zeros(16, dtype=torch.int64), same, normalize, recipe, subtracted)
    batch = images.batch(torch.arange(16), 5, 0, 0, slice(None)) - subtracted  # as the network does
    assert batch.abs().max() < 1e-5  # each image is the mean image, however it is cropped


@pytest.mark.parametrize("recipe", [PAPER, MODERN, PADDED], ids=["paper", "modern", "padded"])
def test_a_run_that_goes_on_in_the_middle_of_an_epoch_with_other_processes_sees_the_same(
    tree: Path, recipe: Recipe
) -> None:
    with streamed(tree, recipe, 1) as one:
        whole = batches(one, recipe, range(9, 15))  # an epoch ends after step 11
    with streamed(tree, recipe, 3) as three:
        rest = batches(three, recipe, range(12, 15))
    assert all(torch.equal(*pair) for pair in zip(whole[3:], rest, strict=True))
    assert not torch.equal(whole[0], whole[1])
    assert whole[0].shape == (16, 3, 32, 32) and whole[0].dtype == torch.float32


@pytest.mark.parametrize("recipe", [PAPER, MODERN], ids=["paper", "modern"])
def test_the_parts_of_two_ranks_are_the_batch_of_one(tree: Path, recipe: Recipe) -> None:
    with streamed(tree, recipe, 1) as one:
        (whole,) = batches(one, recipe, [4])
    parts = []
    for rank in range(2):
        with streamed(tree, recipe, 1) as mine:
            parts += batches(mine, recipe, [4], World(rank, 2, 2))
            assert {len(asked.places) for asked in mine._asked.values()} == {8}  # of images it has none decoded twice
    assert torch.equal(torch.cat(parts), whole)


def test_padded_crops_of_streamed_images_are_those_of_packed_ones(tree: Path, private_cache: Path) -> None:
    dataset = load(tree, CropSpec(32), reading="packed")
    packed = Packed(torch.from_numpy(np.array(dataset.images[:])))
    with streamed(tree, PADDED, 2) as some:
        for one, other in zip(batches(some, PADDED, range(3)), batches(packed, PADDED, range(3)), strict=True):
            assert torch.equal(one, other)


class CudaGraphStep:
    """Stands in for decoding processes: black images, and a record of what was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def submit(self, places: Sequence[Place], crop: CropSpec, _draws: Any = ()) -> list[Future[Decoded]]:
        self.asked.append(len(places))
        answer: Future[Decoded] = Future()
        answer.set_result(Decoded(np.zeros((len(places), crop.size, crop.size, 3), np.uint8), {}))
        return [answer]


@pytest.mark.parametrize("count", [64, 1_000_000])
def test_only_a_few_steps_are_decoded_ahead_however_many_images_there_are(count: int) -> None:
    recorder = CudaGraphStep()
    pixels = Streamed([Place("nowhere")] * count, CropSpec(32), recorder, "cpu", 0, 16)  # type: ignore[arg-type]
    for step in range(5):
        pixels.of(batch_indices(0, step, count, 16), step, slice(0, 16))
        assert len(recorder.asked) == step + 4  # this step's and three more
        assert len(pixels._asked) == 3
    pixels.of(batch_indices(0, 0, count, 16), 0, slice(0, 16))  # back to the beginning, as after timing a few steps
    assert len(pixels._asked) == 3


class KillsADecoder(Progress):
    """At the third step ends one of the processes that decode, as a machine short of memory would."""

    def __init__(self, started: list[Decoders]) -> None:
        super().__init__(is_quiet=True)
        self.started = started

    def show(self, step: int, *_rest: Any) -> None:
        if step == 3:
            os.kill(self.started[-1].pids()[0], signal.SIGKILL)


def test_a_run_whose_decoder_is_killed_ends_in_one_line_and_resumes_bit_equal(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Decoders] = []

    def start(count: int) -> Decoders:
        started.append(Decoders(count))
        return started[-1]

    monkeypatch.setattr(reader, "Decoders", start)
    monkeypatch.setattr("training.runs.run._MOST_STEPS_BETWEEN_LOOKS", 1)
    recipe = dataclasses.replace(MODERN, steps=8, test_size=40, test_shorter_side=44)

    def train(out: str, progress: Progress, **options: Any) -> dict[str, Any]:
        given = Options(out=tmp_path / out, data=tree, checkpoint_every_minutes=0, reading="streamed", **options)
        return run(recipe, given, choose("fp32", "off", 2), progress)

    facts = train("whole", Progress(is_quiet=True), decoders=1)
    assert facts["dataset"]["reading"] == facts["training_pixels"] == "streamed"
    assert facts["preprocessing"]["crop"] == [40, 40] and facts["preprocessing"]["shorter_side"] == 44
    assert facts["results"]["train"]["images"] + facts["results"]["held_out"]["images"] == 201
    with pytest.raises(DataError, match=r"signal 9.*--resume"):
        train("killed", KillsADecoder(started), decoders=2)
    train("killed", Progress(is_quiet=True), decoders=3, resume=True)
    whole, resumed = load_latest(tmp_path / "whole"), load_latest(tmp_path / "killed")
    assert whole and resumed and whole.step == resumed.step == 8
    assert all(torch.equal(whole.weights[name], resumed.weights[name]) for name in whole.weights)
