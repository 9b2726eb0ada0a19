"""`export-onnx check`: comparison of a model file with its card, on this machine and this provider.

Signature and checksum are first: a file that has changed since its export is not even parsed. All other checks compare
the results on this machine with the card.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.checker import ValidationError

from export.errors import ExportError
from export.graph.to_onnx import OUTPUTS
from export.model_file import read_file
from export.options import Provider
from export.sources.sample_images import sample_pixels
from export.verification.evaluation import accuracy_of, answers_of, engine_over
from export.verification.inspect_file import card_of, layers_of, parse
from export.verification.labelled_images import labelled_images
from export.verification.parity import answers_in_batches
from service.engine.engine import Engine
from service.errors import EngineFailed
from service.images.preprocessing import Pixels
from service.model_files.card import GOLDEN_TOLERANCE, Accuracy, ModelCard, golden_input

LARGEST_BATCH = 16  # of the sizes that are compared, from 1
# Larger than the random error of a few images: other processors round differently.
_ACCURACY_TOLERANCE = {"fp32": 0.0005, "fp16": 0.002, "int8": 0.005}
_STANDARD_ERRORS = 4  # if the images are not those of the claim, by their number
# Kernels of other batch sizes sum in another order.
_BATCHES_TOLERANCE = {"fp32": 1e-5, "fp16": 5e-3, "int8": 5e-2}
_TIMED_S = 1.0  # for each batch size


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the table: the claim of the card (or of the signature), and the result."""

    name: str
    claimed: str
    found: str
    passed: bool


def check_file(
    path: Path, data: Path | None, provider: Provider, log: Callable[[str], None], model_keys: Path | None = None
) -> list[Finding]:
    """Return the results of all checks. Raises ExportError for an incomplete file, or one that cannot be run."""
    content = read_file(path, model_keys)
    model = parse(path, content)
    card = card_of(path, model)
    findings = [Finding("checksum", "valid", "valid", True), *_of_the_graph(model, card)]
    if model_keys is not None:
        findings.insert(0, Finding("signature", "by one of the keys", "by one of the keys", True))
    if not all(finding.passed for finding in findings):
        return findings  # an invalid graph is not run
    engine = engine_over(content, provider.value)
    findings += [_golden(engine, card), _batches(engine, card)]
    findings.append(_accuracy(engine, card, data, log))
    findings += [_speed(engine, card, batch) for batch in (1, 8)]
    return findings


def as_table(findings: list[Finding]) -> str:
    """Return the results as text, one a line."""
    rows = [("", "check", "claimed", "found")]
    rows += [("ok" if one.passed else "FAILED", one.name, one.claimed, one.found) for one in findings]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _of_the_graph(model: onnx.ModelProto, card: ModelCard) -> Iterator[Finding]:
    try:
        onnx.checker.check_model(model, full_check=True)
        fault = None
    except ValidationError:
        fault = "faults"
    yield Finding("ONNX checker", "no fault", fault or "no fault", fault is None)
    domains = {opset.domain or "ai.onnx" for opset in model.opset_import}
    domains |= {node.domain or "ai.onnx" for node in model.graph.node}
    yield Finding("operator domains", "ai.onnx", ", ".join(sorted(domains)), domains == {"ai.onnx"})
    outside = [one.name for one in model.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL]
    yield Finding("external data", "none", ", ".join(outside) or "none", not outside)
    layers = {layer.precision for layer in layers_of(model.graph)}
    kept = bool(card.quantisation and card.quantisation.float_layers)
    expected = {card.precision, "fp32"} if kept else {card.precision}
    yield Finding("precision of layers", ", ".join(sorted(expected)), ", ".join(sorted(layers)), layers == expected)
    shapes = {one.name: one.type.tensor_type.shape.dim for one in model.graph.output}
    classes = [axis.dim_value for axis in shapes.get(OUTPUTS[0], ())][1:]
    found = " x ".join(map(str, classes)) or "none"
    yield Finding("classes", str(len(card.labels)), found, classes == [len(card.labels)])


def _golden(engine: Engine, card: ModelCard) -> Finding:
    tolerance = GOLDEN_TOLERANCE[card.precision]
    (answer,) = _run(engine, golden_input(*card.preprocessing.crop))
    difference = float(np.nan_to_num(np.abs(answer[0] - card.golden.probabilities), nan=1.0).max())
    return Finding("golden example", f"differs by at most {tolerance:g}", f"{difference:.1e}", difference <= tolerance)


def _batches(engine: Engine, card: ModelCard) -> Finding:
    tolerance = _BATCHES_TOLERANCE[card.precision]
    pixels = sample_pixels(card.preprocessing)[:LARGEST_BATCH]
    try:
        single, _ = answers_in_batches(engine, pixels, 1)
        others = [answers_in_batches(engine, pixels, size)[0] for size in range(2, LARGEST_BATCH + 1)]
    except EngineFailed:
        raise ExportError("the file cannot be run at every batch size; export it again") from None
    difference = max(float(np.nan_to_num(np.abs(other - single), nan=1.0).max()) for other in others)
    name, claimed = f"batches of 1 to {LARGEST_BATCH}", f"differ by at most {tolerance:g}"
    return Finding(name, claimed, f"{difference:.1e}", difference <= tolerance)


def _accuracy(engine: Engine, card: ModelCard, data: Path | None, log: Callable[[str], None]) -> Finding:
    claim = card.accuracy
    claimed = _described(claim) if claim else "not measured"
    if data is None:
        return Finding("accuracy", claimed, "not measured; give images with --data", True)
    images = labelled_images(data, card, log)
    log(f"measuring its accuracy on {len(images.labels):,} images of {images.name}")
    found = accuracy_of(answers_of(engine, images.pixels, with_energy=False), images, engine.provider)
    return Finding(
        "accuracy", claimed, _described(found), claim is None or _is_as_claimed(found, claim, card.precision)
    )


def _is_as_claimed(found: Accuracy, claim: Accuracy, precision: str) -> bool:
    allowed = _ACCURACY_TOLERANCE[precision]
    if found.images != claim.images:
        variance = claim.top1 * (1 - claim.top1) * (1 / found.images + 1 / claim.images)
        allowed += float(_STANDARD_ERRORS * variance**0.5)
    return abs(found.top1 - claim.top1) <= allowed


def _described(accuracy: Accuracy) -> str:
    return f"{accuracy.top1:.2%} of {accuracy.images:,}, {accuracy.dataset}, {accuracy.provider}"


def _speed(engine: Engine, card: ModelCard, batch: int) -> Finding:
    pixels = np.repeat(golden_input(*card.preprocessing.crop), batch, axis=0)
    _run(engine, pixels)
    times: list[float] = []
    while sum(times) < _TIMED_S:
        started = time.perf_counter()
        _run(engine, pixels)
        times.append(time.perf_counter() - started)
    return Finding(f"images/s, batch {batch}", "", f"{batch / float(np.median(times)):,.1f}, {engine.provider}", True)


def _run(engine: Engine, pixels: Pixels) -> list[NDArray[np.float32]]:
    try:
        return engine.run(pixels, outputs=("probabilities",))
    except EngineFailed:
        raise ExportError("the file loads, but cannot be run; export it again") from None
