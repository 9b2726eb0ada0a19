"""The speed of training, beside a plain PyTorch loop.

`python -m benchmarks.training [--network resnet20] [--pairs 7] [--steps 20]`

plain: PyTorch eagerly in fp32; each image cropped, mirrored and normalized by itself, in the workers of a DataLoader.
ours:  `training.trainer.loop` with the hardware it chooses, images as uint8 in memory, augmented as batches.

Both train the same network on the same made-up images of 32 x 32 pixels, each in a process of its own with all cores
to itself: they take turns, some steps at a time, and the ratio is the median over such pairs. Then the share of a step
of ours that goes into its batch of images. Other work on the machine shows in the spread of the ratios.
"""

import argparse
import dataclasses
import functools
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from service.system.cores import available_cores
from training.data.normalization import Normalize
from training.data.training_set import Packed, TrainingImages
from training.hardware.devices import Hardware, choose
from training.hardware.process_group import World
from training.networks.resnet import build
from training.recipes.catalog import RECIPES
from training.trainer.loop import Training

RECIPE = RECIPES["modern-resnet20"]
MEAN, DEVIATION = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
IMAGES, CLASSES = 5_000, 10
TARGET, TARGET_WITH_BF16, LARGEST_SHARE = 1.3, 2.0, 0.05
WARM_UP_STEPS = 5

Step = Callable[[int], None]  # trains so many steps


def made_images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return made-up images uint8 (N, 32, 32, 3) and labels int64 (N,)."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    return images, random.integers(0, CLASSES, IMAGES)


class PlainImages(Dataset[tuple[Tensor, int]]):
    """One image at a time, as in most tutorials: through Pillow, then to a normalized tensor."""

    def __init__(self) -> None:
        self.images, self.labels = made_images()
        self.mean, self.deviation = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(DEVIATION).view(3, 1, 1)

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = ImageOps.expand(Image.fromarray(self.images[index]), 4)
        top, left = torch.randint(0, 9, (2,)).tolist()
        image = image.crop((left, top, left + 32, top + 32))
        if torch.rand(()) < 0.5:
            image = ImageOps.mirror(image)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div(255)
        return (tensor - self.mean) / self.deviation, int(self.labels[index])


def plain_loop(network: str, batch: int) -> tuple[Step, str]:
    """Return what trains so many steps of the plain loop, and what it runs on."""
    cores = available_cores()
    torch.set_num_threads(cores)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build(network, num_classes=CLASSES).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    loader = DataLoader(PlainImages(), batch, shuffle=True, drop_last=True, num_workers=cores, persistent_workers=True)

    def forever() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    batches = forever()

    def train(steps: int) -> None:
        model.train()
        for _ in range(steps):
            images, labels = next(batches)
            loss = torch.nn.functional.cross_entropy(model(images.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()  # for the log

    return train, f"{device}, fp32, {cores} threads, DataLoader with {cores} workers"


def our_training(network: str, batch: int) -> Training:
    """Return a training as `train-resnet run` would make it."""
    hardware: Hardware = choose()
    images, labels = (torch.from_numpy(array).to(hardware.device) for array in made_images())
    recipe = dataclasses.replace(RECIPE, batch_size=batch)
    normalize = Normalize(MEAN, DEVIATION, hardware.device)
    return Training(
        recipe=recipe,
        seed=0,
        total_steps=100_000,
        hardware=hardware,
        model=build(network, num_classes=CLASSES).to(hardware.device),
        images=TrainingImages(labels, Packed(images), normalize, recipe),
        world=World(),
    )


def serve(link: Connection, name: str, network: str, batch: int) -> None:
    """In a process of its own: train the requested steps and return the seconds they took."""
    training = our_training(network, batch) if name == "ours" else None
    train, about = (training.train, str(training.hardware)) if training else plain_loop(network, batch)
    train(WARM_UP_STEPS)
    link.send(about)
    works: dict[str, Callable[[int], object]] = {"train": train}
    if training:
        works["batches"] = lambda steps: [training.next_batch() for _ in range(steps)]
    while (asked := link.recv()) is not None:
        what, steps = asked
        link.send(_seconds(functools.partial(works[what], steps)))


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def start(name: str, network: str, batch: int) -> Connection:
    """Start a contender and wait until it is warm."""
    ours, theirs = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    context.Process(target=serve, args=(theirs, name, network, batch)).start()
    theirs.close()
    sys.stdout.write(f"{name:6} {ours.recv()}\n")
    return ours


def ask(link: Connection, what: str, steps: int) -> float:
    link.send((what, steps))
    return float(link.recv())


def commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def verdict(ratio: float, share: float, has_bf16: bool) -> str:
    """Return how the figures compare with what they should be."""
    target = TARGET_WITH_BF16 if has_bf16 else TARGET
    speed = f"ratio {ratio:.2f}, required {target:g}: {'reached' if ratio >= target else 'NOT reached'}"
    data = "reached" if share <= LARGEST_SHARE else "NOT reached"
    return f"{speed}; share of the images {share:.1%}, required at most {LARGEST_SHARE:.0%}: {data}"


@dataclasses.dataclass(frozen=True)
class Pair:
    """One turn of each contender: images a second, and the share of a step of ours that its images take."""

    plain: float
    ours: float
    share: float

    @property
    def ratio(self) -> float:
        return self.ours / self.plain


def take_turns(links: dict[str, Connection], number: int, steps: int, batch: int) -> Pair:
    """Let both train, in alternating order."""
    order = list(links) if number % 2 == 0 else list(reversed(links))
    speeds = {name: steps * batch / ask(links[name], "train", steps) for name in order}
    share = ask(links["ours"], "batches", steps) / (steps * batch / speeds["ours"])
    return Pair(speeds["plain"], speeds["ours"], share)


def line(pair: Pair) -> str:
    return (
        f"plain {pair.plain:7.0f}, ours {pair.ours:7.0f} images/s, ratio {pair.ratio:.2f}, "
        f"images {pair.share:.1%} of a step\n"
    )


def summary(pairs: list[Pair], has_bf16: bool) -> str:
    """Return the medians, the spread of the ratios, and how they compare with what they should be."""
    middle = Pair(*(statistics.median(getattr(pair, name) for pair in pairs) for name in ("plain", "ours", "share")))
    ratios = [pair.ratio for pair in pairs]
    return (
        f"medians: {line(middle)}"
        f"ratios {min(ratios):.2f} to {max(ratios):.2f}\n"
        f"{verdict(statistics.median(ratios), middle.share, has_bf16)}\n"
    )


def about_this_machine(given: argparse.Namespace, hardware: Hardware) -> str:
    return (
        f"commit {commit()}, {hardware.processor}, {available_cores()} cores, torch {torch.__version__}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}\n"
        f"{given.network}, batches of {given.batch}, {given.pairs} pairs of {given.steps} steps\n"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measure training beside a plain PyTorch loop.")
    parser.add_argument("--network", default="resnet20")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=20, help="steps of a turn")
    parser.add_argument("--pairs", type=int, default=7)
    given = parser.parse_args(arguments)
    hardware = choose()
    sys.stdout.write(about_this_machine(given, hardware))
    links = {name: start(name, given.network, given.batch) for name in ("plain", "ours")}
    pairs = []
    for number in range(given.pairs):
        pairs.append(take_turns(links, number, given.steps, given.batch))
        sys.stdout.write(f"pair {number + 1}: {line(pairs[-1])}")
    for link in links.values():
        link.send(None)
    sys.stdout.write(summary(pairs, hardware.precision == "bf16"))


if __name__ == "__main__":
    main()
