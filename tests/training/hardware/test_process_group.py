"""Several processes train as one: the same losses, every image counted once, one folder written."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import write_images
from tests.training.runs.test_run import RECIPE
from training.hardware.devices import choose
from training.hardware.process_group import World
from training.recipes.recipe import Recipe
from training.runs.options import Options
from training.runs.progress import Progress
from training.runs.run import run

ROOT = Path(__file__).parents[3]
# 20 steps in which two ranks have 64 images each, or one process has two micro-batches of 64.
LONG_RECIPE = dataclasses.replace(
    RECIPE, steps=20, batch_size=128, held_out_images=7, warmup=0.0, learning_rate=0.05, ema_decay=None
)

RECIPES: dict[str, Recipe] = {
    "packed": LONG_RECIPE,
    "streamed": dataclasses.replace(LONG_RECIPE, crop="random_resized", trivial_augment=True, random_erasing=0.3),
}

WORKER = """
import sys
from pathlib import Path
from tests.training.hardware.test_process_group import RECIPES, trained
from training.hardware.process_group import join

world = join()
trained(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], RECIPES[sys.argv[3]], world)
world.leave()
"""


class Listening(Progress):
    """Keeps the loss of every step to the last digit; each epoch of these runs is one step."""

    def __init__(self, world: World) -> None:
        super().__init__(is_quiet=not world.is_first)
        self.losses: list[float] = []

    def show(self, step: int, total_steps: int, batch_size: int, means: tuple[float, float]) -> None:
        self.losses.append(means[0])


def trained(images: Path, out: Path, reading: Any, recipe: Recipe, world: World) -> dict[str, Any]:
    hardware = choose("fp32", "off", 1)
    progress = Listening(world)
    options = Options(out=out, data=images, test_data=images, reading=reading)
    facts = run(recipe, options, hardware, progress, world)
    if world.is_first:
        (out / "losses.json").write_text(json.dumps(progress.losses))
    return facts


def losses(run_folder: Path) -> list[float]:
    read: list[float] = json.loads((run_folder / "losses.json").read_text())
    return read


@pytest.mark.timeout(240)
@pytest.mark.parametrize("reading", ["packed", pytest.param("streamed", marks=pytest.mark.long)])
def test_two_ranks_of_64_train_as_one_process_with_two_micro_batches_of_64(tmp_path: Path, reading: str) -> None:
    images = write_images(tmp_path / "colours", each=45)
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    # By address, not by the name of this machine: some networks take minutes to say that a name is unknown.
    here = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    command = [sys.executable, "-m", "torch.distributed.run", *here, str(script)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    arguments = [str(images), str(tmp_path / "ranks"), reading]
    several = subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert several.returncode == 0, several.stderr
    assert several.stderr.count("training resnet8") == 1  # the first rank speaks for all
    recipe = dataclasses.replace(RECIPES[reading], micro_batches=2)
    alone = trained(images, tmp_path / "alone", reading, recipe, World())
    assert len(losses(tmp_path / "ranks")) == 20
    assert losses(tmp_path / "ranks") == pytest.approx(losses(tmp_path / "alone"), rel=1e-5, abs=0)
    facts = json.loads((tmp_path / "ranks" / "run.json").read_text())
    assert facts["hardware"]["processes"] == 2
    assert facts["results"]["test"]["images"] == alone["results"]["test"]["images"] == 135
    assert facts["results"]["train"]["images"] == 128


@pytest.mark.parametrize(("count", "size"), [(10, 3), (2, 4), (128, 2)])
def test_the_parts_of_all_ranks_are_everything_once(count: int, size: int) -> None:
    parts = [list(range(count))[World(rank, size).part(count)] for rank in range(size)]
    assert [index for part in parts for index in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
