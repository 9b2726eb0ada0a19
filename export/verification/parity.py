"""Comparison of the file with the PyTorch network, through the code that serves it."""

import numpy as np
import torch
from numpy.typing import NDArray

from export.errors import ExportError
from service.engine.engine import Engine
from service.images.preprocessing import Pixels
from service.model_files.card import Parity, Preprocessing
from training.networks.resnet import ResNet

BATCH_SIZES = (1, 2, 3, 8, 16)
LARGEST_DIFFERENCE = 1e-5  # in probability

Probabilities = NDArray[np.float32]


def check_parity(
    engine: Engine, network: ResNet, preprocessing: Preprocessing, temperature: float, pixels: Pixels
) -> Parity:
    """Compare the engine's answers with PyTorch's for images uint8 (N, H, W, 3), at several batch sizes.

    Raises ExportError if a probability differs by more than 1e-5 or an image's best class is another.
    """
    parity = measure_parity(engine, network, preprocessing, temperature, pixels)
    difference, others = parity.largest_probability_difference, parity.images - parity.agreeing_images
    if difference > LARGEST_DIFFERENCE or others:
        raise ExportError(
            f"the exported graph does not answer as the network does: probabilities differ by up to {difference:.1e} "
            f"({LARGEST_DIFFERENCE:.0e} is allowed), and {others} of {len(pixels)} images get "
            "another label; nothing was written"
        )
    return parity


def measure_parity(
    engine: Engine, network: ResNet, preprocessing: Preprocessing, temperature: float, pixels: Pixels
) -> Parity:
    """Return the difference between the engine and PyTorch, without a limit; arguments as for `check_parity`."""
    expected = probabilities_in_pytorch(network, preprocessing, temperature, pixels)
    difference, agreeing = 0.0, np.ones(len(pixels), dtype=bool)
    for size in BATCH_SIZES:
        answers, best = answers_in_batches(engine, pixels, size)
        # A NaN always counts as a difference.
        difference = max(difference, float(np.nan_to_num(np.abs(answers - expected), nan=1.0).max()))
        agreeing &= best == expected.argmax(axis=1)
    return Parity(
        largest_probability_difference=difference,
        images=len(pixels),
        agreeing_images=int(agreeing.sum()),
        batch_sizes=BATCH_SIZES,
    )


@torch.inference_mode()
def probabilities_in_pytorch(
    network: ResNet, preprocessing: Preprocessing, temperature: float, pixels: Pixels
) -> Probabilities:
    """Return the network's results in PyTorch, float32 (N, classes), without the file's graph."""
    mean, deviation = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.standard_deviation)
    answers = []
    for start in range(0, len(pixels), max(BATCH_SIZES)):
        images = torch.from_numpy(pixels[start : start + max(BATCH_SIZES)].copy())
        normalized = (images / 255 - mean) / deviation
        answers.append(torch.softmax(network.eval()(normalized.permute(0, 3, 1, 2)) / temperature, dim=1))
    return np.asarray(torch.cat(answers).numpy())


def answers_in_batches(engine: Engine, pixels: Pixels, batch_size: int) -> tuple[Probabilities, NDArray[np.int64]]:
    """Return probabilities (N, classes) and the best class (N,), computed in batches of one size.

    The last batch is filled with the first images, so that every batch has this size.
    """
    batches = -(-len(pixels) // batch_size)
    order = np.arange(batches * batch_size) % len(pixels)
    answers = [engine.run(pixels[part]) for part in np.split(order, batches)]
    probabilities = np.concatenate([probabilities for probabilities, _ in answers])
    best = np.concatenate([top_indices[:, 0] for _, top_indices in answers])
    return probabilities[: len(pixels)], best[: len(pixels)]
