"""The results of an engine for labelled images: accuracy, and the temperature that calibrates a network."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from export.errors import ExportError
from export.graph.to_onnx import Normalize
from export.sources.trained import Source
from export.verification.labelled_images import LabelledImages
from service.engine.engine import Engine, EngineError
from service.model_files.card import Accuracy, Calibration
from service.model_files.confidence import ENERGY
from service.system.cores import available_cores
from training.data.image_arrays import Images
from training.evaluation.evaluate import expected_calibration_error, fit_temperature, logits_of

ENGINE_BATCH = 32  # images of one run
_OUTPUTS = ("probabilities", "top_indices")


@dataclass(frozen=True, slots=True)
class Answers:
    """An engine's results for N images. If a probability is NaN, the best classes are -1, which is not a label."""

    probabilities: NDArray[np.float32]  # (N, classes)
    best: NDArray[np.int64]  # (N, up to 5)
    energy: NDArray[np.float32] | None = None  # (N, 1): log-sum-exp of the calibrated logits; None: not computed


def engine_over(content: bytes, providers: str = "cpu") -> Engine:
    """Return an engine on all cores that this process may use. Raises ExportError.

    Exports are always measured on a CPU: a GPU's TF32 differs from PyTorch by more than parity allows.
    """
    try:
        return Engine(content, providers=providers, intra_op_threads=available_cores())
    except EngineError as error:
        raise ExportError(str(error)) from None


def answers_of(engine: Engine, pixels: Images, *, with_energy: bool = True) -> Answers:
    """Return an engine's results for images uint8 (N, H, W, 3), each run once.

    Files of early versions have no output `energy` and need `with_energy` false.
    """
    outputs = (*_OUTPUTS, ENERGY) if with_energy else _OUTPUTS
    batches = [
        engine.run(np.ascontiguousarray(pixels[start : start + ENGINE_BATCH]), outputs)
        for start in _with_a_bar(range(0, len(pixels), ENGINE_BATCH))
    ]
    probabilities, best, *energy = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    best[~np.isfinite(probabilities).all(axis=1)] = -1
    return Answers(probabilities, best, *energy)


def accuracy_of(answers: Answers, images: LabelledImages, provider: str) -> Accuracy:
    """Return the share of images whose label is the best, and among the best five."""
    right = answers.best == images.labels[:, None]
    return Accuracy(
        top1=float(right[:, 0].mean()),
        top5=float(right.any(axis=1).mean()),
        images=len(images.labels),
        dataset=images.name,
        provider=provider,
    )


def calibrate(source: Source, images: LabelledImages) -> Calibration:
    """Return the temperature with the lowest loss on held-out images, and the remaining calibration error (0 to 1)."""
    logits = logits_of(source.network, images.pixels, Normalize(source.preprocessing), batch_size=ENGINE_BATCH)
    fit = fit_temperature(logits, torch.from_numpy(np.array(images.labels)), caution=1.0)
    return Calibration(
        temperature=float(np.float32(fit.temperature)),  # as the graph holds it
        expected_calibration_error=fit.expected_calibration_error,
        images=fit.images,
    )


def with_own_error(calibration: Calibration, answers: Answers, images: LabelledImages) -> Calibration:
    """Return the calibration of a file of lower precision: fp32's temperature, and the error of its own results."""
    probabilities, labels = torch.from_numpy(answers.probabilities), torch.from_numpy(np.array(images.labels))
    error = expected_calibration_error(probabilities, labels)
    return calibration.model_copy(update={"expected_calibration_error": min(1.0, error)})


def _with_a_bar(starts: range) -> Iterable[int]:
    terminal = Console(stderr=True)
    return track(starts, "measuring", console=terminal, transient=True, disable=not terminal.is_terminal)
