"""One export, from a network to a file in its place: the steps of `export-onnx`.

Convert, check the graph, compare it with PyTorch, reduce its precision if requested, measure it and write the card.
Only then the file gets its name.
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
from export.reduced_precision import Fp32, reduce_precision
from export.signing import Sign
from export.sources.sample_images import samples_by_every_resizer
from export.sources.trained import Source
from export.triton_config import write_triton_config
from export.verification.calibration_images import find_images, read_unlabelled
from export.verification.confidence import Unknown, measure_confidence
from export.verification.evaluation import Answers, accuracy_of, answers_of, calibrate, engine_over, with_own_error
from export.verification.labelled_images import Evidence, find_evidence
from export.verification.parity import check_parity, measure_parity
from service.engine.engine import Engine
from service.images.preprocessing import Pixels, installed_resizers
from service.model_files.card import GOLDEN_TOLERANCE, Calibration, ModelCard, read_card
from service.model_files.checksum import append_checksum

MODELS_FOLDER = Path("models")
_MOST_UNKNOWN = 10_000  # images


@dataclass(frozen=True, slots=True)
class Exported:
    """The written file, its size and its card."""

    path: Path
    size: int  # bytes
    card: ModelCard


def export(
    source: Source,
    *,
    data: Path | None,
    output: Path | None,
    options: PrecisionOptions,
    log: Callable[[str], None],
    sign: Sign | None = None,
) -> Exported:
    """Write a network as a model file, to `output` or as the next version under models/; `sign` signs it there.

    Raises ExportError, and writes nothing, if the file does not pass a check.
    """
    evidence = find_evidence(source, data, log)
    calibration = calibrate(source, evidence.held_out) if evidence.held_out else None
    temperature = calibration.temperature if calibration else 1.0
    images = find_images(source, options.calibration, log) if options.precision is Precision.INT8 else None
    log(f"converting {source.network.architecture.network}")
    network = deployable(source.network)
    graph = to_onnx(network, source.preprocessing, temperature)
    engine = engine_over(serialise(graph))
    pixels = _parity_pixels(source, evidence, log)
    parity = check_parity(engine, source.network, source.preprocessing, temperature, pixels)
    findings = Findings(options.precision, parity, calibration)
    unknown = _unknown(options.unknown, source, log)
    if options.precision is Precision.FP32:
        test_answers = _test_answers(engine, evidence, log)
    else:
        reduced = reduce_precision(Fp32(source, network, graph, engine, temperature), options, evidence, images, log)
        graph, engine = reduced.graph, reduced.engine
        findings.parity = measure_parity(engine, source.network, source.preprocessing, temperature, pixels)
        findings.loss, findings.quantisation = reduced.loss, reduced.quantisation
        test_answers = None if evidence.test is None else reduced.answers
        findings.calibration = _own_calibration(calibration, engine, evidence, test_answers)
    if evidence.test is not None and test_answers is not None:
        findings.accuracy = accuracy_of(test_answers, evidence.test, engine.provider)
    findings.confidence = measure_confidence(engine, evidence, test_answers, unknown)
    content = append_checksum(with_card(graph, make_card(source, graph, engine, findings)))
    card = _check_as_served(content)
    path = _write(content, source, options.precision, output, sign)
    if output is None:
        write_triton_config(path.parents[1], graph, card.precision, log)
    return Exported(path, len(content), card)


def _parity_pixels(source: Source, evidence: Evidence, log: Callable[[str], None]) -> Pixels:
    """Return images of the test set, if there are any, and the sample images by every resizer."""
    samples = samples_by_every_resizer(source.preprocessing)
    tested = [evidence.test.spread()] if evidence.test else []
    others = f"{len(tested[0])} images and " if tested else ""
    log(f"comparing it with PyTorch on {others}{len(samples)} sample images (by {', '.join(installed_resizers())})")
    return np.concatenate([*tested, samples])


def _unknown(path: Path | None, source: Source, log: Callable[[str], None]) -> Unknown | None:
    if path is None:
        return None
    pixels = read_unlabelled(path, source.preprocessing, most=_MOST_UNKNOWN, flag="--unknown", log=log)
    return Unknown(pixels, path.name)


def _test_answers(engine: Engine, evidence: Evidence, log: Callable[[str], None]) -> Answers | None:
    if evidence.test is None:
        return None
    log(f"measuring its accuracy on {len(evidence.test.labels):,} images of {evidence.test.name}")
    return answers_of(engine, evidence.test.pixels)


def _own_calibration(
    calibration: Calibration | None, engine: Engine, evidence: Evidence, test_answers: Answers | None
) -> Calibration | None:
    """Return the calibration of a reduced file, measured on the held-out images with its engine."""
    held_out = evidence.held_out
    if calibration is None or held_out is None:
        return None
    answers = test_answers if held_out is evidence.test else None
    return with_own_error(calibration, answers or answers_of(engine, held_out.pixels), held_out)


def _check_as_served(content: bytes) -> ModelCard:
    """Load the final bytes as a server does, repeat the golden example, return the card. Raises ExportError."""
    engine = engine_over(content)
    card = read_card(engine.metadata)
    answer = golden_answer(engine, card.preprocessing.crop)
    if not np.allclose(answer, card.golden.probabilities, rtol=0, atol=GOLDEN_TOLERANCE[card.precision]):
        raise ExportError("the finished file does not repeat its golden example; nothing was written")
    return card


def _write(content: bytes, source: Source, precision: Precision, output: Path | None, sign: Sign | None) -> Path:
    if output is None:
        name = source.name if precision is Precision.FP32 else f"{source.name}-{precision}"
        return write_next_version(MODELS_FOLDER / name, content, sign)
    write_file(output, content, sign)
    return output
