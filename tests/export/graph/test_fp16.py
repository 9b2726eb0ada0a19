"""fp16: half inside, float32 at the edges, no cast in between; what would overflow is refused."""

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from export.errors import ExportError
from export.graph.fp16 import LARGEST_ACTIVATION, largest_value, to_half
from export.graph.to_onnx import deployable, serialise, to_onnx
from export.sources.network_spec import NetworkSpec
from export.sources.sample_images import sample_pixels
from export.sources.trained import from_random_weights
from service.engine.engine import Engine
from tests.export.conftest import TEMPERATURE, Converted


@pytest.fixture(scope="module")
def half(tiny: Converted) -> onnx.ModelProto:
    preprocessing = tiny.source.preprocessing
    network = to_half(deployable(tiny.source.network), preprocessing, sample_pixels(preprocessing))
    return to_onnx(network, preprocessing, TEMPERATURE)


def test_only_the_edges_are_cast(half: onnx.ModelProto) -> None:
    kinds = [node.op_type for node in half.graph.node]
    casts = [node for node in half.graph.node if node.op_type == "Cast"]
    # Pixels to float32, normalised to half; then logits, embedding and maps to float32.
    assert len(casts) == 5
    first, last = kinds.index("Conv"), len(kinds) - kinds[::-1].index("Conv")
    assert "Cast" not in kinds[first:last]
    made = {name for node in casts for name in node.output}
    used = Counter(name for node in half.graph.node if node.op_type in ("Conv", "Add", "Relu") for name in node.input)
    assert len(made & used.keys()) == 1  # the normalised image, into the first convolution


def test_all_weights_are_half_and_the_contract_is_kept(half: onnx.ModelProto, tiny: Converted) -> None:
    weights = {tensor.name: tensor.data_type for tensor in half.graph.initializer}
    assert {kind for name, kind in weights.items() if name.startswith("network.")} == {TensorProto.FLOAT16}
    for ours, theirs in zip(half.graph.output, tiny.graph.graph.output, strict=True):
        assert ours == theirs
    assert len(serialise(half)) < 0.6 * len(tiny.content)


def test_the_answers_are_those_of_fp32_within_the_precision(half: onnx.ModelProto, tiny: Converted) -> None:
    outputs = ("probabilities", "embedding", "class_maps")
    pixels = sample_pixels(tiny.source.preprocessing)
    got = Engine(serialise(half), providers="cpu").run(pixels, outputs)
    expected = Engine(tiny.content, providers="cpu").run(pixels, outputs)
    for one, other in zip(got, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=3e-3 * np.abs(other).max())


def test_the_network_itself_stays_in_float(tiny: Converted) -> None:
    network = deployable(tiny.source.network)
    to_half(network, tiny.source.preprocessing, sample_pixels(tiny.source.preprocessing)[:1])
    assert all(weight.dtype == torch.float32 for weight in network.parameters())


@pytest.mark.parametrize(
    "weight", ["conv1.weight", *(pytest.param(name, marks=pytest.mark.long) for name in ("fc.weight", "fc.bias"))]
)
def test_a_value_above_32000_anywhere_is_refused_in_one_line(weight: str) -> None:
    source = from_random_weights(NetworkSpec(depth=8), None, seed=0)
    network, pixels = deployable(source.network), sample_pixels(source.preprocessing)
    assert largest_value(network, source.preprocessing, pixels) < LARGEST_ACTIVATION
    with torch.no_grad():
        network.get_parameter(weight).fill_(-31_000)
        network.get_parameter(weight)[0] = 31_000
        if weight == "fc.bias":  # no weight exceeds the limit, nor any sum but the last
            network.fc.weight.fill_(0)
            network.fc.weight[0] = 2_000
    with pytest.raises(
        ExportError, match=r"reaches [0-9,]+, and fp16 is safe up to 32,000; nothing was written.*--prec"
    ):
        to_half(network, source.preprocessing, pixels)


def test_a_sum_that_an_activation_hides_is_seen() -> None:
    source = from_random_weights(NetworkSpec(depth=8), None, seed=0)
    network, pixels = deployable(source.network), sample_pixels(source.preprocessing)
    with torch.no_grad():
        network.layer1[0].conv2.bias.fill_(-31_999)  # type: ignore[index, union-attr]
        network.layer1[0].conv2.weight.fill_(-10)  # type: ignore[index, union-attr]
    # After the rectifier it is all zero.
    assert largest_value(network, source.preprocessing, pixels) > LARGEST_ACTIVATION


def test_not_a_number_is_too_large() -> None:
    source = from_random_weights(NetworkSpec(depth=8), None, seed=0)
    network = deployable(source.network)
    with torch.no_grad():
        network.conv1.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ExportError, match="fp16 is safe up to"):
        to_half(network, source.preprocessing, sample_pixels(source.preprocessing))


def test_weights_read_back_are_the_rounded_ones(half: onnx.ModelProto, tiny: Converted) -> None:
    (bias,) = [tensor for tensor in half.graph.initializer if tensor.name == "network.fc.bias"]
    np.testing.assert_array_equal(numpy_helper.to_array(bias), tiny.source.network.fc.bias.detach().half().numpy())
