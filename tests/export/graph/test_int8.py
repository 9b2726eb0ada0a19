"""int8: integers from the first convolution to the last map, in the form that each target runs fast."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from export.graph.activation_ranges import METHODS, Histograms, Ranges
from export.graph.int8 import outer_layers, quantise, tensors_to_watch
from export.graph.to_onnx import serialise
from export.options import Target
from export.sources.sample_images import sample_pixels
from service.engine.engine import Engine
from tests.export.conftest import Converted

OUTPUTS = ("probabilities", "embedding", "top_indices", "class_maps")
SIDE = 32
CPUINFO = Path("/proc/cpuinfo")
HAS_VNNI = not CPUINFO.is_file() or "vnni" in CPUINFO.read_text()


@pytest.fixture(scope="module")
def ranges(tiny: Converted) -> Ranges:
    pixels = sample_pixels(tiny.source.preprocessing)
    return Histograms(tiny.graph, tensors_to_watch(tiny.graph, Target.ARM), pixels).ranges("min-max")


@pytest.fixture(scope="module")
def for_x86(tiny: Converted, ranges: Ranges) -> onnx.ModelProto:
    return quantise(tiny.graph, ranges, Target.X86)


def optimised(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Return the graph as ONNX Runtime will run it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 4
    onnxruntime.InferenceSession(serialise(model), options, providers=["CPUExecutionProvider"])
    return onnx.load(path)


def test_the_optimised_graph_stays_in_integers_from_the_first_layer_to_the_last(
    for_x86: onnx.ModelProto, tmp_path: Path
) -> None:
    nodes = optimised(for_x86, tmp_path / "optimised.onnx").graph.node
    kinds = Counter(node.op_type for node in nodes)
    assert kinds["QLinearConv"] == 7 + 2
    assert kinds["QLinearAdd"] == 3  # a residual addition in each block
    assert kinds["QGemm"] == 1
    assert not {"Conv", "Add", "Gemm", "Relu"} & kinds.keys()
    order = [node.op_type for node in nodes]
    inside = order[order.index("QLinearConv") : len(order) - order[::-1].index("QLinearAdd")]
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(inside)


def test_colours_are_normalised_without_repeating_three_values_and_with_the_same_result(
    for_x86: onnx.ModelProto, tmp_path: Path
) -> None:
    graph = optimised(for_x86, tmp_path / "optimised.onnx").graph
    values = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    used = [values[node.input[1]] for node in graph.node if node.op_type in ("Sub", "Mul") and node.input[1] in values]
    assert used[:2] == [[1, SIDE, SIDE, 3]] * 2
    repeated = onnx.ModelProto()
    repeated.CopyFrom(for_x86)
    for node in repeated.graph.node:
        if node.op_type in ("Sub", "Mul") and node.input[1].endswith("_of_pixels"):
            node.input[1] = node.input[1].removesuffix("_of_pixels")
    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    for found, wanted in zip(
        *(Engine(serialise(one)).run(images, OUTPUTS) for one in (for_x86, repeated)), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


def test_on_x86_activations_are_unsigned_and_weights_signed_for_each_channel_with_a_bit_to_spare(
    for_x86: onnx.ModelProto,
) -> None:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in for_x86.graph.initializer}
    activations = [node for node in for_x86.graph.node if node.op_type == "QuantizeLinear"]
    assert activations
    assert {constants[node.input[2]].dtype for node in activations} == {np.dtype(np.uint8)}
    weights = {name: value for name, value in constants.items() if name.endswith("weight_quantized")}
    assert len(weights) == 10
    for name, value in weights.items():
        assert value.dtype == np.int8
        assert np.abs(value).max() <= 64
        assert constants[name.replace("_quantized", "_scale")].shape == value.shape[:1]


@pytest.mark.parametrize("target", [Target.ARM, Target.TENSORRT])
def test_elsewhere_everything_is_signed_and_symmetric(tiny: Converted, ranges: Ranges, target: Target) -> None:
    graph = quantise(tiny.graph, ranges, target).graph
    zeros = [node.input[2] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    assert all(not constants[name].any() for name in zeros)
    kinds = {constants[name].dtype for name in zeros}
    assert np.dtype(np.uint8) not in kinds
    assert (np.dtype(np.int32) in kinds) == (target is Target.ARM)  # TensorRT takes float biases only


@pytest.mark.parametrize("target", list(Target))
def test_all_outputs_stay_right(tiny: Converted, ranges: Ranges, target: Target) -> None:
    if target is not Target.X86 and not HAS_VNNI:
        pytest.skip("this processor saturates sums of two products of full 8-bit weights: it has no VNNI")
    pixels = sample_pixels(tiny.source.preprocessing)
    got = Engine(serialise(quantise(tiny.graph, ranges, target)), providers="cpu").run(pixels, OUTPUTS)
    expected = Engine(tiny.content, providers="cpu").run(pixels, OUTPUTS)
    np.testing.assert_allclose(got[0], expected[0], rtol=0, atol=0.05)
    np.testing.assert_allclose(got[1], expected[1], rtol=0, atol=0.03 * np.abs(expected[1]).max())
    same = got[2] == expected[2]
    assert same[:, 0].mean() > 0.8  # among random weights there are near ties
    assert same.mean() > 0.7
    np.testing.assert_allclose(got[3][same], expected[3][same], rtol=0, atol=0.1 * np.abs(expected[3]).max())


def test_maps_and_bias_make_the_logits_in_integers_too(tiny: Converted, for_x86: onnx.ModelProto) -> None:
    pixels = sample_pixels(tiny.source.preprocessing)
    probabilities, best, maps = Engine(serialise(for_x86), providers="cpu").run(pixels, (OUTPUTS[0], *OUTPUTS[2:]))
    logits = maps.mean(axis=(2, 3)) + tiny.source.network.fc.bias.detach().numpy()[best]
    shares: NDArray[np.float32] = np.take_along_axis(np.log(probabilities), best, axis=1)
    np.testing.assert_allclose((logits - logits[:, :1]) / 1.5, shares - shares[:, :1], rtol=0, atol=0.1)


def test_answers_distinguish_what_256_levels_of_logits_would_tie(tiny: Converted, for_x86: onnx.ModelProto) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)
    (probabilities,) = Engine(serialise(for_x86), providers="cpu").run(pixels, ("probabilities",))
    assert len(np.unique(probabilities)) > 256


def test_only_standard_operators_a_float_embedding_and_no_traces_of_the_tool(for_x86: onnx.ModelProto) -> None:
    onnx.checker.check_model(for_x86, full_check=True)
    assert {opset.domain for opset in for_x86.opset_import} == {""}
    assert not for_x86.metadata_props
    producers = {name: node.op_type for node in for_x86.graph.node for name in node.output}
    assert producers["embedding"] == "ReduceMean"


def test_for_tensorrt_nothing_stands_between_a_layer_and_its_rectifier(tiny: Converted, ranges: Ranges) -> None:
    graph = quantise(tiny.graph, ranges, Target.TENSORRT).graph
    producers = {name: node.op_type for node in graph.node for name in node.output}
    before = [producers[node.input[0]] for node in graph.node if node.op_type == "Relu"]
    assert Counter(before) == {"Conv": 4, "Add": 3}
    after = [node.op_type for node in graph.node if producers.get(node.input[0]) == "Relu"]
    assert set(after) == {"QuantizeLinear"}


def test_for_x86_ranges_before_a_rectifier_are_not_needed(tiny: Converted, ranges: Ranges) -> None:
    needed = tensors_to_watch(tiny.graph, Target.X86)
    assert len(needed) == len(ranges) - 7
    assert quantise(tiny.graph, {name: ranges[name] for name in needed}, Target.X86) == quantise(
        tiny.graph, ranges, Target.X86
    )


def test_outer_layers_can_stay_in_float(tiny: Converted, ranges: Ranges) -> None:
    kept = outer_layers(tiny.graph)
    assert kept == ("network.conv1", "network.fc")
    types = {
        tensor.name: tensor.data_type
        for tensor in quantise(tiny.graph, ranges, Target.X86, kept).graph.initializer
        if "weight" in tensor.name
    }
    assert types["network.conv1.weight"] == types["network.fc.weight"] == TensorProto.FLOAT
    assert types["network.layer1.0.conv1.weight_quantized"] == TensorProto.INT8
    assert "network.layer1.0.conv1.weight" not in types


def test_each_method_keeps_the_extremes_or_cuts_inside_them(tiny: Converted) -> None:
    pixels = sample_pixels(tiny.source.preprocessing)
    watched = tensors_to_watch(tiny.graph, Target.ARM)
    histograms = Histograms(tiny.graph, watched, pixels)
    assert histograms.images == len(pixels)
    found = {method: histograms.ranges(method) for method in METHODS}
    assert all(ranges.keys() == set(watched) for ranges in found.values())
    for name, (low, high) in found["min-max"].items():
        for method in METHODS:
            assert low <= found[method][name][0] <= found[method][name][1] <= high
    assert any(found["entropy"][name] != found["min-max"][name] for name in watched)


def test_extremes_are_those_of_all_images_whatever_the_batches(tiny: Converted) -> None:
    pixels = sample_pixels(tiny.source.preprocessing)
    many = np.concatenate([pixels] * 8)  # several batches of 48
    watched = tensors_to_watch(tiny.graph, Target.ARM)
    one = Histograms(tiny.graph, watched, pixels).ranges("min-max")
    other = Histograms(tiny.graph, watched, many).ranges("min-max")
    for name in watched:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5)
