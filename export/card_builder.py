"""The card of a finished file: facts about the source, and measurements of the file."""

import datetime
import importlib.metadata
import os
import platform
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from export.errors import ExportError
from export.options import Precision
from export.sources.trained import Source
from service.engine.engine import Engine
from service.engine.provider_options import recommended
from service.images.preprocessing import usual_resizer
from service.model_files.card import (
    Accuracy,
    Calibration,
    Confidence,
    Golden,
    ModelCard,
    Parity,
    PrecisionLoss,
    Provenance,
    Quantisation,
    Variant,
    golden_input,
)


@dataclass(slots=True)
class Findings:
    """The measurements of one export."""

    precision: Precision
    parity: Parity
    calibration: Calibration | None
    accuracy: Accuracy | None = None
    loss: PrecisionLoss | None = None
    confidence: Confidence | None = None
    quantisation: Quantisation | None = None


def make_card(source: Source, graph: onnx.ModelProto, engine: Engine, findings: Findings) -> ModelCard:
    """Return the card of a graph that this engine runs. Raises ExportError if SOURCE_DATE_EPOCH is no date."""
    described = source.network.architecture
    return ModelCard(
        network=described.network,
        depth=described.depth,
        variant=Variant(
            shortcut=described.shortcut,
            stride_in=described.stride_in,
            stem=None if described.stem == "7x7" else described.stem,
        ),
        labels=source.labels,
        synsets=source.synsets,
        preprocessing=source.preprocessing.model_copy(update={"resizer": usual_resizer()}),
        dataset=source.dataset,
        precision=findings.precision.value,
        accuracy=findings.accuracy,
        calibration=findings.calibration,
        confidence=findings.confidence,
        parity=findings.parity,
        precision_loss=findings.loss,
        quantisation=findings.quantisation,
        provenance=Provenance(
            checkpoint_sha256=source.checkpoint_sha256,
            recipe=source.recipe,
            seed=source.seed,
            git_commit=source.git_commit,
            created=_created(),
            versions=_versions(graph),
        ),
        published=source.published,
        golden=Golden(probabilities=tuple(golden_answer(engine, source.preprocessing.crop).tolist())),
        recommended=recommended(*source.preprocessing.crop, findings.precision.value),
    )


def golden_answer(engine: Engine, crop: tuple[int, int]) -> NDArray[np.float32]:
    """Return the probabilities of the golden image, float32 (classes,)."""
    (probabilities,) = engine.run(golden_input(*crop), outputs=("probabilities",))
    return np.asarray(probabilities[0]).clip(0, 1)


def _created() -> str:
    """Return the time, or SOURCE_DATE_EPOCH if set, so that the same export gives the same bytes."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.now(datetime.UTC) if epoch is None else _from_epoch(epoch)
    return now.isoformat(timespec="seconds")


def _from_epoch(epoch: str) -> datetime.datetime:
    try:
        return datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)
    except (ValueError, OverflowError, OSError):
        raise ExportError(f"SOURCE_DATE_EPOCH is {epoch!r}; it must be a number of seconds, or unset") from None


def _versions(graph: onnx.ModelProto) -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnx": onnx.__version__,
        "onnxscript": importlib.metadata.version("onnxscript"),
        "onnxruntime": _onnxruntime_version(),
        "opset": str(graph.opset_import[0].version),
        "ir": str(graph.ir_version),
    }


def _onnxruntime_version() -> str:
    try:
        return importlib.metadata.version("onnxruntime")
    except importlib.metadata.PackageNotFoundError:
        return importlib.metadata.version("onnxruntime-gpu")
