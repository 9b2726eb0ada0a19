"""The model file keeps the contract: names, types, shapes, what each output means, and nothing else in it."""

import json
import os

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

from export.graph.to_onnx import Normalize, deployable, serialise, to_onnx, with_card
from export.sources.network_spec import NetworkSpec, parse_choice
from export.sources.sample_images import sample_pixels
from export.sources.trained import from_random_weights
from export.verification.parity import check_parity, probabilities_in_pytorch
from service.engine.engine import Engine
from service.model_files.card import Golden, ModelCard, Parity, Provenance, Variant, read_card
from tests.export.conftest import TEMPERATURE, Converted

OUTPUTS = ("probabilities", "embedding", "top_indices", "class_maps", "energy")


def answer(tiny: Converted, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    return dict(zip(OUTPUTS, Engine(tiny.content, providers="cpu").run(pixels, outputs=OUTPUTS), strict=True))


def shapes(values: object) -> dict[str, tuple[int, list[int | str]]]:
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim],
        )
        for value in values  # type: ignore[attr-defined]
    }


def test_names_types_and_shapes_are_the_contracts(tiny: Converted) -> None:
    onnx.checker.check_model(tiny.graph, full_check=True)
    assert shapes(tiny.graph.graph.input) == {"images": (onnx.TensorProto.UINT8, ["batch", 32, 32, 3])}
    assert shapes(tiny.graph.graph.output) == {
        "probabilities": (onnx.TensorProto.FLOAT, ["batch", 6]),
        "embedding": (onnx.TensorProto.FLOAT, ["batch", 64]),
        "top_indices": (onnx.TensorProto.INT64, ["batch", 5]),
        "class_maps": (onnx.TensorProto.FLOAT, ["batch", 5, 8, 8]),
        "energy": (onnx.TensorProto.FLOAT, ["batch", 1]),
    }


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_any_batch_size_runs_and_images_do_not_depend_on_their_neighbours(tiny: Converted, batch: int) -> None:
    pixels = sample_pixels(tiny.source.preprocessing)[:batch]
    together = answer(tiny, pixels)
    for index in range(batch):
        alone = answer(tiny, pixels[index : index + 1])
        for name in OUTPUTS:
            np.testing.assert_allclose(together[name][index], alone[name][0], rtol=1e-4, atol=1e-5)


def test_outputs_are_what_the_network_computes(tiny: Converted) -> None:
    pixels = sample_pixels(tiny.source.preprocessing)
    got = answer(tiny, pixels)
    network = tiny.source.network
    with torch.inference_mode():
        features = network.features(Normalize(tiny.source.preprocessing)(torch.from_numpy(pixels)))
        logits = network.fc(features.mean(dim=(2, 3)))
    expected = torch.softmax(logits / TEMPERATURE, dim=1)
    np.testing.assert_allclose(got["probabilities"], expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(got["embedding"], features.mean(dim=(2, 3)), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(got["top_indices"], logits.topk(5).indices)
    np.testing.assert_allclose(got["energy"][:, 0], torch.logsumexp(logits / TEMPERATURE, dim=1), rtol=1e-5)
    maps = torch.einsum("cd,ndhw->nchw", network.fc.weight.detach(), features)
    for image, classes in enumerate(got["top_indices"]):
        np.testing.assert_allclose(got["class_maps"][image], maps[image, classes], rtol=1e-3, atol=1e-4)


def test_the_mean_of_a_class_map_and_the_bias_make_the_logit(tiny: Converted) -> None:
    got = answer(tiny, sample_pixels(tiny.source.preprocessing))
    bias = tiny.source.network.fc.bias.detach().numpy()
    logits = got["class_maps"].mean(axis=(2, 3)) + bias[got["top_indices"]]
    ratios = np.take_along_axis(np.log(got["probabilities"]), got["top_indices"], axis=1)
    np.testing.assert_allclose((logits - logits[:, :1]) / TEMPERATURE, ratios - ratios[:, :1], rtol=1e-3, atol=1e-3)


def test_normalisation_is_that_of_the_card_up_to_rounding(tiny: Converted) -> None:
    preprocessing = tiny.source.preprocessing
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    got = Normalize(preprocessing)(torch.from_numpy(pixels)).numpy()
    expected = (pixels / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.standard_deviation)
    np.testing.assert_allclose(got, expected.transpose(0, 3, 1, 2), rtol=0, atol=1e-6)


def test_batch_norm_is_folded_and_only_standard_operators_are_left(tiny: Converted) -> None:
    kinds = [node.op_type for node in tiny.graph.graph.node]
    assert "BatchNormalization" not in kinds
    assert kinds.count("Conv") == 7 + 2  # the zero-padded shortcuts of option A are convolutions here
    assert not {"Slice", "Pad"} & set(kinds)
    assert {(opset.domain, opset.version) for opset in tiny.graph.opset_import} == {("", 20)}
    assert not any(node.domain for node in tiny.graph.graph.node)


@pytest.mark.parametrize("variant", ["A", "B", "C", "plain"])
def test_every_kind_of_shortcut_answers_as_in_pytorch(variant: str) -> None:
    source = from_random_weights(parse_choice(8, [variant]), None, seed=2)
    state = {name: tensor.clone() for name, tensor in source.network.state_dict().items()}
    engine = Engine(serialise(to_onnx(deployable(source.network), source.preprocessing, 1.0)), providers="cpu")
    check_parity(engine, source.network, source.preprocessing, 1.0, sample_pixels(source.preprocessing))
    assert state.keys() == source.network.state_dict().keys()  # the network itself is left alone
    assert all(torch.equal(tensor, source.network.state_dict()[name]) for name, tensor in state.items())


def test_weights_keep_their_names_and_none_lies_outside_the_file(tiny: Converted) -> None:
    weights = tiny.graph.graph.initializer
    assert "network.layer3.0.conv2.weight" in {weight.name for weight in weights}
    assert all(weight.data_location == onnx.TensorProto.DEFAULT for weight in weights)


def test_the_file_says_nothing_of_the_machine_it_was_made_on(tiny: Converted) -> None:
    assert os.path.dirname(os.path.dirname(torch.__file__)).encode() not in tiny.content
    assert b".py" not in tiny.content


def test_a_network_with_three_classes_names_all_three() -> None:
    source = from_random_weights(NetworkSpec(depth=8), ["a", "b", "c"], seed=0)
    engine = Engine(serialise(to_onnx(deployable(source.network), source.preprocessing, 1.0)), providers="cpu")
    pixels = sample_pixels(source.preprocessing)[:2]
    probabilities, best, maps = engine.run(pixels, outputs=("probabilities", "top_indices", "class_maps"))
    assert (probabilities.shape, best.shape, maps.shape) == ((2, 3), (2, 3), (2, 3, 8, 8))
    np.testing.assert_array_equal(best, np.argsort(-probabilities, axis=1))


def test_the_mean_image_that_some_recipes_subtract_is_part_of_the_graph() -> None:
    source = from_random_weights(NetworkSpec(depth=8), None, seed=0)
    source.network.pixel_mean = torch.linspace(-1, 1, 3 * 32 * 32).reshape(3, 32, 32)
    engine = Engine(serialise(to_onnx(deployable(source.network), source.preprocessing, 1.0)), providers="cpu")
    pixels = sample_pixels(source.preprocessing)[:3]
    (probabilities,) = engine.run(pixels, outputs=("probabilities",))
    expected = probabilities_in_pytorch(source.network, source.preprocessing, 1.0, pixels)
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)


def test_the_card_travels_in_the_file_and_does_not_change_the_graph(tiny: Converted) -> None:
    card = ModelCard(
        network="resnet8",
        depth=8,
        variant=Variant(shortcut="A", stride_in=None),
        labels=tiny.source.labels,
        preprocessing=tiny.source.preprocessing,
        dataset=None,
        precision="fp32",
        accuracy=None,
        calibration=None,
        parity=Parity(largest_probability_difference=0, images=1, agreeing_images=1, batch_sizes=(1,)),
        provenance=Provenance(
            checkpoint_sha256=None,
            recipe=None,
            seed=1,
            git_commit=None,
            created="2026-01-01T00:00:00+00:00",
            versions={},
        ),
        golden=Golden(probabilities=(1, 0, 0, 0, 0, 0)),
    )
    content = with_card(tiny.graph, card)
    assert read_card(Engine(content, providers="cpu").metadata) == card
    read_again = onnx.load_from_string(content)
    assert json.loads(read_again.metadata_props[0].value)["labels"][0] == "kind 0"
    assert read_again.graph == tiny.graph.graph
    assert not tiny.graph.metadata_props
