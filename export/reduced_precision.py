"""The fp32 graph converted to fp16 or int8, and its accuracy check.

For int8, three methods for limiting ranges are tried on images that the ranges are not from; the best is used. The
first and the last layer stay in float only if the file otherwise fails the accuracy check.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx

from export.errors import ExportError
from export.graph.activation_ranges import METHODS, Histograms, Method
from export.graph.fp16 import to_half
from export.graph.int8 import outer_layers, quantise, tensors_to_watch
from export.graph.to_onnx import serialise, to_onnx
from export.options import PrecisionOptions, Target
from export.sources.sample_images import sample_pixels
from export.sources.trained import Source
from export.verification.accuracy_gate import AccuracyGate, gate_violation
from export.verification.calibration_images import CalibrationImages
from export.verification.evaluation import Answers, engine_over
from export.verification.labelled_images import Evidence, LabelledImages
from service.engine.engine import Engine
from service.images.preprocessing import Pixels
from service.model_files.card import PrecisionLoss, Quantisation
from training.networks.resnet import ResNet

_CHOOSING_IMAGES = 1000  # each method runs over all of them
_SAMPLES = "sample images"


@dataclass(frozen=True, slots=True)
class Reduced:
    """A graph of lower precision, its engine, its results for the images of the check, and the card's entries."""

    graph: onnx.ModelProto
    engine: Engine
    answers: Answers
    loss: PrecisionLoss
    quantisation: Quantisation | None = None


@dataclass(frozen=True, slots=True)
class Fp32:
    """The exported network in fp32, from which lower precisions are made."""

    source: Source
    network: ResNet  # that `deployable` made
    graph: onnx.ModelProto
    engine: Engine
    temperature: float


def reduce_precision(
    fp32: Fp32,
    options: PrecisionOptions,
    evidence: Evidence,
    images: CalibrationImages | None,
    log: Callable[[str], None],
) -> Reduced:
    """Return the network in int8 if there are images to calibrate it with, else in fp16.

    Raises ExportError, with the measured loss, if it loses too much. Random weights are only reported.
    """
    reduced = _to_int8(fp32, options, evidence, images, log) if images else _to_fp16(fp32, evidence)
    problem = gate_violation(reduced.loss, options.precision, options.max_loss)
    if problem and not fp32.source.is_random:
        advice = "Give better images with --calibration, or " if reduced.quantisation else "Give "
        raise ExportError(f"{problem}; nothing was written. {advice}a larger --max-accuracy-loss (100 allows any)")
    if problem:
        log(f"{problem}; accepted, because the weights are random")
    return reduced


def _to_fp16(fp32: Fp32, evidence: Evidence) -> Reduced:
    preprocessing = fp32.source.preprocessing
    samples = sample_pixels(preprocessing)
    shown = samples if evidence.test is None else np.concatenate([samples, evidence.test.spread()])
    graph = to_onnx(to_half(fp32.network, preprocessing, shown), preprocessing, fp32.temperature)
    return _judged(graph, _gate(fp32, evidence.test, samples, _SAMPLES))


def _to_int8(
    fp32: Fp32, options: PrecisionOptions, evidence: Evidence, images: CalibrationImages, log: Callable[[str], None]
) -> Reduced:
    log(f"measuring ranges on {len(images.measured)} images ({images.name})")
    histograms = Histograms(fp32.graph, tensors_to_watch(fp32.graph, options.target), images.measured)
    unlabelled = _distinct(np.concatenate([images.judging, sample_pixels(fp32.source.preprocessing)]))
    name = f"calibration and {_SAMPLES}" if len(images.judging) else _SAMPLES
    gate = _gate(fp32, evidence.test, unlabelled, name)
    choosing = _choosing(fp32, evidence.held_out or evidence.test, unlabelled, name)
    method, divergence = _best_method(fp32, histograms, options.target, choosing, log)
    for float_layers in ((), outer_layers(fp32.graph)):
        graph = quantise(fp32.graph, histograms.ranges(method), options.target, float_layers)
        quantisation = Quantisation(
            target=options.target.value,
            method=method,
            images=histograms.images,
            choosing_images=len(choosing.pixels),
            divergence=divergence,
            float_layers=float_layers,
        )
        reduced = _judged(graph, gate, quantisation)
        if fp32.source.is_random or not gate_violation(reduced.loss, options.precision, options.max_loss):
            break
        if not float_layers:
            log("accuracy check failed; keeping the first and last layer in float")
    return reduced


def _best_method(
    fp32: Fp32, histograms: Histograms, target: Target, choosing: AccuracyGate, log: Callable[[str], None]
) -> tuple[Method, float]:
    """Return the method whose probabilities are closest to those of fp32, and their divergence in nats."""
    found = {
        method: choosing.divergence(engine_over(serialise(quantise(fp32.graph, histograms.ranges(method), target))))
        for method in METHODS
    }
    best = min(METHODS, key=lambda method: found[method])
    figures = ", ".join(f"{method} {found[method]:.2g}" for method in METHODS)
    log(f"ranges by {best}; divergence from fp32 on {len(choosing.pixels):,} images of {choosing.name}: {figures} nats")
    return best, found[best]


def _judged(graph: onnx.ModelProto, gate: AccuracyGate, quantisation: Quantisation | None = None) -> Reduced:
    engine = engine_over(serialise(graph))
    loss, answers = gate.judge(engine)
    return Reduced(graph, engine, answers, loss, quantisation)


def _gate(fp32: Fp32, labelled: LabelledImages | None, unlabelled: Pixels, name: str) -> AccuracyGate:
    if labelled is None:
        return AccuracyGate(unlabelled, None, name, fp32.engine)
    return AccuracyGate(labelled.pixels, labelled.labels, labelled.name, fp32.engine)


def _choosing(fp32: Fp32, labelled: LabelledImages | None, unlabelled: Pixels, name: str) -> AccuracyGate:
    """Return the images by which the ranges are chosen: up to 1,000 of the held-out ones, and the unlabelled ones."""
    if labelled is None:
        return AccuracyGate(unlabelled, None, name, fp32.engine)
    count = len(labelled.pixels)
    chosen = np.linspace(0, count - 1, min(_CHOOSING_IMAGES, count)).round().astype(int)
    pixels = np.concatenate([labelled.pixels[chosen], unlabelled])
    return AccuracyGate(pixels, None, f"{labelled.name}, {name}", fp32.engine)


def _distinct(pixels: Pixels) -> Pixels:
    """Return every image once: copies add no information."""
    return np.stack(list({image.tobytes(): image for image in pixels}.values()))
