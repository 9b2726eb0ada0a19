"""One export, from a network to a file in its place: the story that `export-onnx` tells.

Convert, check the graph, compare it with PyTorch, lower its precision if that is wanted and passes its gate, measure
it, write the card, and only then give the file its name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.card_builder import Findings, golden_answer, make_card
from export.errors import ExportError
from export.graph.to_onnx import deployable, serialise, to_onnx, with_card
from export.model_file import write_file, write_next_version
from export.options import Precision, PrecisionOptions
from export.reduced_precision import Fp32, lower
from export.sources.sample_images import samples_by_every_resizer
from export.sources.trained import Source
from export.triton_config import write_triton_config
from export.verification.calibration_images import find_images, read_unlabelled
from export.verification.confidence import Unknown, measure_confidence
from export.verification.evaluation import Answers, accuracy_of, answers_of, calibrate, engine_over
from export.verification.labelled_images import Evidence, find_evidence
from export.verification.parity import check_parity, measure_parity
from service.engine.engine import Engine
from service.images.preprocessing import Pixels, installed_resizers
from service.model_files.card import GOLDEN_TOLERANCE, ModelCard, read_card
from service.model_files.checksum import seal

MODELS_FOLDER = Path("models")
_MOST_UNKNOWN = 10_000  # images


@dataclass(frozen=True, slots=True)
class Exported:
    """The file that was written, its bytes, and what its card says."""

    path: Path
    size: int  # bytes
    card: ModelCard


def export(
    source: Source, *, data: Path | None, output: Path | None, wanted: PrecisionOptions, say: Callable[[str], None]
) -> Exported:
    """Write a network as a model file, to `output` or as the next version under models/.

    Raises ExportError if the file would not be what it should be, and then nothing is written.
    """
    evidence = find_evidence(source, data, say)
    calibration = calibrate(source, evidence.held_out) if evidence.held_out else None
    temperature = calibration.temperature if calibration else 1.0
    images = find_images(source, wanted.calibration, say) if wanted.precision is Precision.INT8 else None
    say(f"converting {source.network.architecture.network}")
    network = deployable(source.network)
    graph = to_onnx(network, source.preprocessing, temperature)
    engine = engine_over(serialise(graph))
    pixels = _parity_pixels(source, evidence, say)
    parity = check_parity(engine, source.network, source.preprocessing, temperature, pixels)
    findings = Findings(wanted.precision, parity, calibration)
    unknown = _unknown(wanted.unknown, source, say)
    if wanted.precision is Precision.FP32:
        test_answers = _test_answers(engine, evidence, say)
    else:
        lowered = lower(Fp32(source, network, graph, engine, temperature), wanted, evidence, images, say)
        graph, engine = lowered.graph, lowered.engine
        findings.parity = measure_parity(engine, source.network, source.preprocessing, temperature, pixels)
        findings.loss, findings.quantisation = lowered.loss, lowered.quantisation
        test_answers = None if evidence.test is None else lowered.answers
    if evidence.test is not None and test_answers is not None:
        findings.accuracy = accuracy_of(test_answers, evidence.test, engine.provider)
    findings.confidence = measure_confidence(engine, evidence, test_answers, unknown)
    content = seal(with_card(graph, make_card(source, graph, engine, findings)))
    card = _check_as_served(content)
    path = _write(content, source, wanted.precision, output)
    if output is None:
        write_triton_config(path.parents[1], graph, card.precision, say)
    return Exported(path, len(content), card)


def _parity_pixels(source: Source, evidence: Evidence, say: Callable[[str], None]) -> Pixels:
    """Return images of the test set, where there are any, and the sample images by every resizer."""
    samples = samples_by_every_resizer(source.preprocessing)
    tested = [evidence.test.spread()] if evidence.test else []
    others = f"{len(tested[0])} images and " if tested else ""
    say(f"comparing it with PyTorch on {others}{len(samples)} sample images (by {', '.join(installed_resizers())})")
    return np.concatenate([*tested, samples])


def _unknown(path: Path | None, source: Source, say: Callable[[str], None]) -> Unknown | None:
    if path is None:
        return None
    pixels = read_unlabelled(path, source.preprocessing, most=_MOST_UNKNOWN, flag="--unknown", say=say)
    return Unknown(pixels, path.name)


def _test_answers(engine: Engine, evidence: Evidence, say: Callable[[str], None]) -> Answers | None:
    if evidence.test is None:
        return None
    say(f"measuring its accuracy on {len(evidence.test.labels):,} images of {evidence.test.name}")
    return answers_of(engine, evidence.test.pixels)


def _check_as_served(content: bytes) -> ModelCard:
    """Load the final bytes as a server does, repeat the golden example, return the card. Raises ExportError."""
    engine = engine_over(content)
    card = read_card(engine.metadata)
    answer = golden_answer(engine, card.preprocessing.crop)
    if not np.allclose(answer, card.golden.probabilities, rtol=0, atol=GOLDEN_TOLERANCE[card.precision]):
        raise ExportError("the finished file does not repeat its golden example; nothing was written")
    return card


def _write(content: bytes, source: Source, precision: Precision, output: Path | None) -> Path:
    if output is None:
        name = source.name if precision is Precision.FP32 else f"{source.name}-{precision}"
        return write_next_version(MODELS_FOLDER / name, content)
    write_file(output, content)
    return output
