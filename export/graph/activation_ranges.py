"""The ranges of activations for int8, measured on images and limited by one of three methods.

The network runs once over the images and leaves a histogram of each tensor, from which every method derives its ranges.
Entropy and percentile are the methods of `onnxruntime.quantization`.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import Literal

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization.calibrate import HistogramCollector

from export.graph.to_onnx import INPUT, serialise
from service.images.preprocessing import Pixels
from service.system.cores import available_cores

Method = Literal["entropy", "percentile", "min-max"]
METHODS: tuple[Method, ...] = ("entropy", "percentile", "min-max")
Ranges = dict[str, tuple[np.float32, np.float32]]

# Histograms instead of activations: ONNX Runtime's calibration held 30 GB for 300 images of ResNet-50 (decision 21).
_BINS = 512  # over both signs; the search by entropy takes time with their square
_LEVELS = 128  # that entropy compares with, as in TensorRT's method
_PERCENTILE = 99.99  # of the values; 0.2 points lost, against 0.4 by min-max and 2.3 by entropy (ResNet-20)
_MOST_VALUES = 100_000  # of a tensor in one batch that enter its histogram; the extremes always do
_PIXELS_AT_A_TIME = 50_000  # one image of 224 x 224: all its activations are kept at once


class Histograms:
    """Histograms of the tensors of a graph over some images."""

    def __init__(self, model: onnx.ModelProto, tensors: list[str], pixels: Pixels) -> None:
        """Run the graph on images, uint8 (N, H, W, 3), and watch these of its float tensors."""
        self.images = len(pixels)
        self._collector = HistogramCollector("percentile", False, _BINS, _LEVELS, _PERCENTILE, "same")
        session = _session_that_shows(model, tensors)
        for batch in _batches(pixels):
            values = session.run(tensors, {INPUT: batch})
            self._collector.collect_value({name: _thinned(value) for name, value in zip(tensors, values, strict=True)})

    def ranges(self, method: Method) -> Ranges:
        """Return the smallest and the largest value that each tensor should represent."""
        histograms = self._collector.histogram_dict
        if method == "min-max":
            return {name: (np.float32(entry[2]), np.float32(entry[3])) for name, entry in histograms.items()}
        with contextlib.redirect_stdout(io.StringIO()):  # the collector prints its progress
            if method == "percentile":
                found = self._collector.compute_percentile()
            else:
                found = {
                    name: self._collector.get_entropy_threshold(entry, _LEVELS) for name, entry in histograms.items()
                }
        return {name: (np.float32(entry[0]), np.float32(entry[1])) for name, entry in found.items()}


def _session_that_shows(model: onnx.ModelProto, tensors: list[str]) -> onnxruntime.InferenceSession:
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in tensors)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_cores()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(serialise(shown), options, providers=["CPUExecutionProvider"])


def _batches(pixels: Pixels) -> Iterator[Pixels]:
    size = max(1, _PIXELS_AT_A_TIME // (pixels.shape[1] * pixels.shape[2]))
    for start in range(0, len(pixels), size):
        yield np.ascontiguousarray(pixels[start : start + size])


def _thinned(values: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = values.reshape(-1)
    if flat.size <= _MOST_VALUES:
        return flat
    some = flat[:: flat.size // _MOST_VALUES + 1]
    return np.concatenate([some, [flat.min(), flat.max()]])
