"""Measurements of single layers in the runs that are compared: responses and gradients."""

import math
import statistics
from collections.abc import Sequence

import torch
from torch import nn

from training.networks.resnet import ResNet
from training.report.numbers import Comparison
from training.report.runs import Run

Gradients = dict[int, list[float]]  # by step, a value for each convolution


def responses(comparison: Comparison) -> dict[str, list[float]]:
    """Return the standard deviations of the layers' responses, first layer first, by network."""
    first = comparison.first()
    return {name: list(run.facts.layer_responses.values()) for name, run in first.items() if run.facts.layer_responses}


def spread(values: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the smallest, the median, the mean and the largest value."""
    return min(values), statistics.median(values), statistics.fmean(values), max(values)


def gradients(comparison: Comparison) -> dict[str, Gradients]:
    """Return the norms of the convolutions' gradients, first layer first, by network and step."""
    found = {}
    for network, run in comparison.first().items():
        moments = sorted(run.facts.gradient_norms.items())
        norms = {step: [norm for layer, norm in layers.items() if layer != "fc"] for step, layers in moments}
        if norms and all(norms.values()):
            found[network] = norms
    return found


def relative_gradients(comparison: Comparison) -> dict[str, Gradients]:
    """Return the same norms, each over the norm that the layer's weights have at initialization.

    Layers of different size have gradients of different norm; this makes them comparable. A run does not record the
    norms of its weights, so that of He initialization is used at every step: sqrt(2 x output channels).
    """
    found = {}
    for network, moments in gradients(comparison).items():
        scales = _initial_weight_norms(comparison.runs[network][0])
        found[network] = {
            step: [norm / scale for norm, scale in zip(norms, scales, strict=True)]
            for step, norms in moments.items()
            if len(norms) == len(scales)
        }
    return {network: moments for network, moments in found.items() if moments}


def _initial_weight_norms(run: Run) -> list[float]:
    described = run.facts.architecture
    with torch.device("meta"):
        network = ResNet(described, described.num_classes)
    modules = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return [math.sqrt(2 * module.out_channels) for module in modules]
