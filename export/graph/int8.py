"""int8: quantise–dequantise pairs around what computes, in the form that the target's kernels are fast at.

x86: unsigned activations, signed weights for each channel, with one bit less (`reduce_range`), so that processors
without VNNI do not saturate. ARM and TensorRT: symmetric signed. Sums at the end of blocks are quantised too, so that
a network runs from its first convolution to its last map without leaving integers.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.calibrate import TensorsData, save_tensors_data

from export.graph.activation_ranges import Ranges
from export.graph.to_onnx import check_graph, remove_notes
from export.options import Target

_KINDS = ("Conv", "Relu", "Add", "MaxPool", "Gemm")
_WITH_WEIGHTS = ("Conv", "Gemm")
_CALIBRATED = CalibrationMethod.MinMax  # the method named in the file with the ranges
_SIGNED: dict[str, Any] = {"activation_type": QuantType.QInt8, "reduce_range": False}
_FORMS: dict[Target, dict[str, Any]] = {
    Target.X86: {"activation_type": QuantType.QUInt8, "reduce_range": True},
    Target.ARM: _SIGNED,
    Target.TENSORRT: _SIGNED,
}
_OPTIONS: dict[Target, dict[str, Any]] = {
    Target.X86: {},
    Target.ARM: {"ActivationSymmetric": True},
    # TensorRT supports only float biases, and weights with their own quantise–dequantise pair.
    Target.TENSORRT: {"ActivationSymmetric": True, "QuantizeBias": False, "AddQDQPairToWeight": True},
}


def tensors_to_watch(model: onnx.ModelProto, target: Target) -> list[str]:
    """Return the activations whose ranges `quantise` needs for this target."""
    constants = {tensor.name for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in _KINDS]
    names = dict.fromkeys(name for node in nodes for name in (*node.input, *node.output))
    # A rectifier's output is unsigned, so the tensor before it can use the same range.
    hidden = {node.input[0] for node in nodes if node.op_type == "Relu"} if target is Target.X86 else set()
    return [name for name in names if name not in constants | hidden]


def outer_layers(model: onnx.ModelProto) -> tuple[str, str]:
    """Return the names of the first and the last layer with weights, which lose most by quantisation."""
    layers = [_layer_of(node) for node in model.graph.node if node.op_type in _WITH_WEIGHTS]
    return layers[0], layers[-1]


def _layer_of(node: onnx.NodeProto) -> str:
    return str(node.input[1]).removesuffix(".weight")


def quantise(
    model: onnx.ModelProto, ranges: Ranges, target: Target, float_layers: Sequence[str] = ()
) -> onnx.ModelProto:
    """Return an fp32 graph in int8, without a card. Raises ExportError if the ONNX checker rejects it."""
    quantised = _quantised_by_onnx_runtime(model, ranges, target, float_layers)
    del quantised.metadata_props[:]
    remove_notes(quantised)
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    if target is Target.TENSORRT:
        _join_activations(quantised.graph)
    _show_the_embedding_itself(quantised.graph)
    _gather_rows_before_dequantising(quantised.graph)
    if target is not Target.TENSORRT:
        _spread_colours(quantised.graph)
    check_graph(quantised)
    return quantised


def _quantised_by_onnx_runtime(
    model: onnx.ModelProto, ranges: Ranges, target: Target, float_layers: Sequence[str]
) -> onnx.ModelProto:
    with tempfile.TemporaryDirectory(prefix="export-onnx-") as folder:
        # ONNX Runtime takes ranges only as the calibration cache of an earlier call.
        known, written = Path(folder, "ranges.json"), Path(folder, "quantised.onnx")
        save_tensors_data(TensorsData(_CALIBRATED, _with_hidden(model, ranges)), known)
        quantize_static(
            _marked_as_prepared(model),
            written,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_KINDS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[
                node.name
                for node in model.graph.node
                if node.op_type in _WITH_WEIGHTS and _layer_of(node) in float_layers
            ],
            calibrate_method=_CALIBRATED,
            calibration_cache_path=known,
            # Logits stay float: 256 levels would tie labels.
            extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"], **_OPTIONS[target]},
            **_FORMS[target],
        )
        return onnx.load(written)


def _with_hidden(model: onnx.ModelProto, ranges: Ranges) -> Ranges:
    """Return the ranges, with the range after each rectifier also for the unmeasured tensor before it."""
    hidden = {node.input[0]: ranges[node.output[0]] for node in model.graph.node if node.op_type == "Relu"}
    return hidden | ranges


def _marked_as_prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy without the warnings of quantize_static: batch norm is folded and shapes are known."""
    marked = onnx.ModelProto()
    marked.CopyFrom(model)
    helper.set_model_props(marked, {"onnx.quant.pre_process": "onnxruntime.quant"})
    return marked


def _join_activations(graph: onnx.GraphProto) -> None:
    """Remove the pair between a layer and its rectifier, which TensorRT computes together."""
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        after = producers.get(node.input[0]) if node.op_type == "Relu" else None
        if after is not None and after.op_type == "DequantizeLinear":
            before = producers[after.input[0]]
            node.input[0] = before.input[0]
            graph.node.remove(before)
            graph.node.remove(after)


def _show_the_embedding_itself(graph: onnx.GraphProto) -> None:
    """Return the float embedding before its quantisation for the classifier as the output `embedding`."""
    producers = {name: node for node in graph.node for name in node.output}
    last = producers["embedding"]
    if last.op_type != "DequantizeLinear":
        return
    quantised = producers[last.input[0]]
    before, after = quantised.input[0], "embedding_for_the_classifier"
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = after if name == "embedding" else name
    producers[before].output[0] = quantised.input[0] = "embedding"
    last.output[0] = after


def _spread_colours(graph: onnx.GraphProto) -> None:
    """Give the normalization's constants a value for each pixel, computed when the file is loaded.

    ONNX Runtime's integer convolutions use channels-last order, and so does the normalization before them. With one
    value for each of three colours, it loops over three values at a time, which took 7% of ResNet-50's time.
    """
    height, width = (value.dim_value for value in graph.input[0].type.tensor_type.shape.dim[1:3])
    shape = numpy_helper.from_array(np.array([3, height, width], dtype=np.int64), "image_shape")
    colours = {tensor.name for tensor in graph.initializer if list(tensor.dims) == [3, 1, 1]}
    for node in [node for node in graph.node if node.op_type in ("Sub", "Mul") and node.input[1] in colours]:
        spread = f"{node.input[1]}_of_pixels"
        graph.node.insert(0, helper.make_node("Expand", [node.input[1], shape.name], [spread]))
        node.input[1] = spread
    graph.initializer.append(shape)


def _gather_rows_before_dequantising(graph: onnx.GraphProto) -> None:
    """Select the five rows of the class maps as integers, instead of converting the whole classifier for each image."""
    producers = {name: node for node in graph.node for name in node.output}
    (gather,) = [node for node in graph.node if node.op_type == "GatherND"]
    dequantise = producers.get(gather.input[0])
    if dequantise is None:  # the classifier is in float
        return
    if dequantise.input[0] in producers:  # its weights are float in the file, with their own pair
        gather.input[0] = producers[dequantise.input[0]].input[0]
        return
    integers, scales = dequantise.input[:2]
    indices, rows = gather.input[1], gather.output[0]
    axis = numpy_helper.from_array(np.array([-1], dtype=np.int64), "last_axis")
    graph.initializer.append(axis)
    place = list(graph.node).index(gather)
    graph.node.remove(gather)
    for node in reversed(
        (
            helper.make_node("GatherND", [integers, indices], ["rows_as_integers"]),
            helper.make_node("Cast", ["rows_as_integers"], ["rows_unscaled"], to=TensorProto.FLOAT),
            helper.make_node("GatherND", [scales, indices], ["scales_of_rows"]),
            helper.make_node("Unsqueeze", ["scales_of_rows", axis.name], ["scales_of_values"]),
            helper.make_node("Mul", ["rows_unscaled", "scales_of_values"], [rows]),
        )
    ):
        graph.node.insert(place, node)
