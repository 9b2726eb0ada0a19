"""`train-resnet initial-signals` and `loss-surface`: measurements for the report that no run makes by itself."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training.cli.failure import fail

if TYPE_CHECKING:
    from torch import Tensor

    from training.data.dataset import Dataset

_SIGNAL_SEEDS = (0, 1, 2)
_REACH = 1.0  # of the filters' norms, on either side of the weights


def initial_signals(
    data: Annotated[
        Path, typer.Option(help="CIFAR-10 images: a folder (or a tar of one) with a folder for each class.")
    ],
    out: Annotated[Path, typer.Option(help="The file for the report, beside the run folders.")] = Path(
        "training/results/initial-signals.json"
    ),
    images: Annotated[int, typer.Option(min=2, help="Number of images in the batch.")] = 16,
) -> None:
    """Measure signals and gradients of 56 layers at initialization, with and without batch norm."""
    from training.evaluation.initial_signals import SETUPS, measure
    from training.networks.colour_statistics import CIFAR10

    dataset = _load(data, 32)
    pixels, labels = _batch(dataset, images, CIFAR10.mean, CIFAR10.standard_deviation)
    networks = []
    for setup in SETUPS:
        typer.echo(f"measuring {setup.label}", err=True)
        found = measure(setup, pixels, labels, _SIGNAL_SEEDS)
        values = {
            name: [float(f"{value:.4g}") for value in getattr(found, name)]
            for name in ("response", "backward", "gradient_over_weight")
        }
        facts = {"network": setup.network, "batch_norm": setup.batch_norm, "initialization": setup.initialization}
        networks.append({"label": setup.label, **facts, **values})
    _write(out, {"images": images, "dataset": dataset.name, "seeds": list(_SIGNAL_SEEDS), "networks": networks})


def loss_surface(
    checkpoint: Annotated[Path, typer.Option(help="A run folder with weights.")],
    data: Annotated[Path, typer.Option(help="Images: a folder (or a tar of one) with a folder for each class.")],
    images: Annotated[int, typer.Option(min=1, help="Number of images for each point.")] = 256,
    points: Annotated[int, typer.Option(min=3, max=51, help="Points a side, an odd number.")] = 15,
    out: Annotated[
        Path | None, typer.Option(help="The file; default: loss-surface.json in the run folder.", show_default=False)
    ] = None,
) -> None:
    """Measure the loss around a run's weights on a plane of two filter-normalized random directions."""
    from training.evaluation.loss_surface import coordinates
    from training.evaluation.loss_surface import loss_surface as measure
    from training.runs.loading import read_trained
    from training.weights.checkpoint import CheckpointError

    try:
        trained, places = read_trained(checkpoint), coordinates(points, _REACH)
    except (CheckpointError, ValueError) as error:
        fail(str(error))
    record = trained.record
    dataset = _load(data, record.preprocessing.crop[0])
    if dataset.classes != record.labels:
        fail("the data does not have the classes of the run; give other --data")
    pixels, labels = _batch(dataset, images, record.preprocessing.mean, record.preprocessing.standard_deviation)
    losses = measure(trained.network, pixels, labels, places, progress=_log_row)
    rounded = [[float(f"{loss:.4g}") for loss in row] for row in losses]
    facts = {"network": record.network, "dataset": dataset.name, "images": len(labels), "seed": 0}
    _write(out or trained.run / "loss-surface.json", facts | {"coordinates": places, "loss": rounded})


def _log_row(done: int, whole: int) -> None:
    typer.echo(f"row {done} of {whole}", err=True)


def _load(data: Path, side: int) -> "Dataset":
    from training.data.crops import CropSpec
    from training.data.dataset import DataError, load

    try:
        return load(data.expanduser(), CropSpec(side), announce=lambda line: typer.echo(line, err=True))
    except DataError as error:
        fail(str(error))


def _batch(
    dataset: "Dataset", count: int, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> tuple["Tensor", "Tensor"]:
    """Return images that are spread evenly over the classes, normalized (N, 3, H, W), and their labels (N,)."""
    import numpy as np
    import torch

    from training.data.normalization import Normalize

    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(count, len(dataset))).astype(np.int64))
    pixels = torch.from_numpy(np.array(dataset.images[chosen]))
    return Normalize(mean, deviation, "cpu").channels_first(pixels), torch.from_numpy(dataset.labels[chosen])


def _write(file: Path, content: dict[str, object]) -> None:
    try:
        file.write_text(json.dumps(content) + "\n", encoding="utf-8")
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}; give another --out")
    typer.echo(f"done: {file}", err=True)
