"""One export, from a network to a file in its place: the story that `export-onnx` tells.

Convert, check the graph, compare it with PyTorch, measure it, write the card, and only then give the file its name.
"""

import datetime
import importlib.metadata
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from export.errors import ExportError
from export.measure import Evidence, calibrate, find_evidence, measure_accuracy
from export.model_file import write_file, write_next_version
from export.parity import check_parity
from export.samples import sample_pixels
from export.source import Source
from export.to_onnx import serialise, to_onnx, with_card
from export.triton import write_triton_config
from service.engine import Engine, EngineError
from service.model_card import (
    GOLDEN_TOLERANCE,
    Accuracy,
    Calibration,
    Golden,
    ModelCard,
    Parity,
    Precision,
    Provenance,
    Variant,
    golden_input,
    read_card,
)
from service.provider_options import recommended
from service.seal import seal

PRECISION: Precision = "fp32"
MODELS_FOLDER = Path("models")


@dataclass(frozen=True, slots=True)
class Exported:
    """The file that was written, its bytes, and what its card says."""

    path: Path
    size: int  # bytes
    card: ModelCard


def export(source: Source, *, data: Path | None, output: Path | None, say: Callable[[str], None]) -> Exported:
    """Write a network as a model file, to `output` or as the next version under models/.

    Raises ExportError if the file would not be what it should be, and then nothing is written.
    """
    evidence = find_evidence(source, data, say)
    calibration = calibrate(source, evidence.held_out) if evidence.held_out else None
    temperature = calibration.temperature if calibration else 1.0
    say(f"converting {source.network.architecture.network}")
    graph = to_onnx(source.network, source.preprocessing, temperature)
    engine = _engine(serialise(graph))
    parity = _check_parity(engine, source, temperature, evidence, say)
    accuracy = _measure_accuracy(engine, evidence, say)
    card = _card(source, graph, engine, parity=parity, accuracy=accuracy, calibration=calibration)
    content = seal(with_card(graph, card))
    _check_as_served(content)
    path = _write(content, source, output)
    if output is None:
        write_triton_config(path.parents[1], graph, card.precision, say)
    return Exported(path, len(content), card)


def _engine(content: bytes) -> Engine:
    # On a CPU whatever there is: a GPU's TF32 differs from PyTorch by more than parity allows.
    try:
        return Engine(content, providers="cpu", intra_op_threads=len(os.sched_getaffinity(0)))
    except EngineError as error:
        raise ExportError(f"{error}; nothing was written") from None


def _check_parity(
    engine: Engine, source: Source, temperature: float, evidence: Evidence, say: Callable[[str], None]
) -> Parity:
    pixels = evidence.test.spread() if evidence.test else sample_pixels(source.preprocessing)
    say(f"comparing it with PyTorch on {len(pixels)} {'pictures' if evidence.test else 'sample pictures'}")
    return check_parity(engine, source.network, source.preprocessing, temperature, pixels)


def _measure_accuracy(engine: Engine, evidence: Evidence, say: Callable[[str], None]) -> Accuracy | None:
    if evidence.test is None:
        return None
    say(f"measuring its accuracy on {len(evidence.test.labels):,} pictures of {evidence.test.name}")
    return measure_accuracy(engine, evidence.test)


def _card(
    source: Source,
    graph: onnx.ModelProto,
    engine: Engine,
    *,
    parity: Parity,
    accuracy: Accuracy | None,
    calibration: Calibration | None,
) -> ModelCard:
    described = source.network.architecture
    return ModelCard(
        network=described.network,
        depth=described.depth,
        variant=Variant(shortcut=described.shortcut, stride_in=described.stride_in),
        labels=source.labels,
        synsets=source.synsets,
        preprocessing=source.preprocessing,
        dataset=source.dataset,
        precision=PRECISION,
        accuracy=accuracy,
        calibration=calibration,
        parity=parity,
        provenance=Provenance(
            checkpoint_sha256=source.checkpoint_sha256,
            recipe=source.recipe,
            seed=source.seed,
            git_commit=source.git_commit,
            created=_created(),
            versions=_versions(graph),
        ),
        published=source.published,
        golden=Golden(probabilities=tuple(_golden_answer(engine, source.preprocessing.crop).tolist())),
        recommended=recommended(*source.preprocessing.crop, PRECISION),
    )


def _golden_answer(engine: Engine, crop: tuple[int, int]) -> "np.ndarray[tuple[int], np.dtype[np.float32]]":
    (probabilities,) = engine.run(golden_input(*crop), outputs=("probabilities",))
    return np.asarray(probabilities[0]).clip(0, 1)


def _created() -> str:
    """Return the time, or the one that SOURCE_DATE_EPOCH sets, so that the same export gives the same bytes."""
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


def _check_as_served(content: bytes) -> None:
    """Load the final bytes as a server does, and repeat the golden example. Raises ExportError."""
    engine = _engine(content)
    card = read_card(engine.metadata)
    answer = _golden_answer(engine, card.preprocessing.crop)
    if not np.allclose(answer, card.golden.probabilities, rtol=0, atol=GOLDEN_TOLERANCE[card.precision]):
        raise ExportError("the finished file does not repeat its golden example; nothing was written")


def _write(content: bytes, source: Source, output: Path | None) -> Path:
    if output is None:
        return write_next_version(MODELS_FOLDER / source.name, content)
    write_file(output, content)
    return output
