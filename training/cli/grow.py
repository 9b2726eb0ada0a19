"""`train-resnet grow`: the initial weights of a ResNet-50 from a trained ResNet-18."""

from pathlib import Path
from typing import Annotated

import typer

from training.cli.failure import fail

_IMAGES = 512  # for batch-norm statistics


def grow(
    run: Annotated[Path, typer.Argument(help="A run of resnet18.")],
    out: Annotated[Path, typer.Argument(help="The file to write, such as grown.safetensors.")],
    data: Annotated[Path, typer.Option(help="Images for batch-norm statistics: the run's training images.")],
    network: Annotated[str, typer.Option(help="resnet50, resnet101 or resnet152.")] = "resnet50",
) -> None:
    """Convert a trained ResNet-18 to a deeper network that answers almost alike, as --weights of a run."""
    import numpy as np
    import torch
    from safetensors.torch import save

    from training.data.crops import CropSpec
    from training.data.dataset import DataError, load
    from training.data.normalization import Normalize
    from training.runs.loading import read_trained
    from training.weights.checkpoint import CheckpointError, write_whole
    from training.weights.growth import grow as grown_from

    try:
        trained = read_trained(run)
        crop = trained.record.preprocessing
        images = load(data, CropSpec(crop.crop[0], shorter_side=crop.shorter_side)).images
        chosen = np.random.default_rng(0).permutation(len(images))[:_IMAGES]
        pixels = torch.from_numpy(np.stack([images[index] for index in chosen]))
        normalize = Normalize(crop.mean, crop.standard_deviation, "cpu")
        torch.manual_seed(0)
        weights = grown_from(trained.network, network, normalize.channels_first(pixels)).state_dict()
        write_whole(out, save({name: tensor.contiguous() for name, tensor in weights.items()}))
    except (CheckpointError, DataError, ValueError) as error:
        fail(str(error))
    except OSError as error:
        fail(f"cannot write to {out}: {error.strerror}; give another file")
    typer.echo(f"{out}: {network}; train it with: train-resnet run --weights {out} --data {data} …")
