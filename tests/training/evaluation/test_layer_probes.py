import numpy as np
import pytest
import torch
from torch import Tensor

from training.evaluation.layer_probes import gradient_norms, layer_responses
from training.networks.resnet import build

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 32, 32, 3)).astype(np.uint8)


def to_input(images: Tensor) -> Tensor:
    return (images.permute(0, 3, 1, 2).float() - 128) / 64


@pytest.mark.parametrize(("network", "count"), [("resnet20", 19), ("plain20", 19), ("resnet50", 16)])
def test_every_3x3_layer_is_measured_once_in_order(network: str, count: int) -> None:
    responses = layer_responses(build(network), IMAGES[:2], to_input)
    assert len(responses) == count
    assert list(responses)[-1].startswith(("layer3.2.conv2", "layer4.2.conv2"))


def test_a_response_is_the_standard_deviation_after_batch_norm_over_all_images() -> None:
    model = build("resnet20").eval()
    with torch.no_grad():
        model.bn1.weight.mul_(3)
        expected = model.bn1(model.conv1(to_input(torch.from_numpy(IMAGES)))).std(correction=0).item()
    assert layer_responses(model, IMAGES, to_input, batch_size=3)["conv1"] == pytest.approx(expected, rel=1e-4)


def test_gradient_norms_are_those_of_the_weights_in_order() -> None:
    model = build("resnet20")
    model(to_input(torch.from_numpy(IMAGES))).square().sum().backward()
    norms = gradient_norms(model)
    assert next(iter(norms)) == "conv1" and list(norms)[-1] == "fc" and len(norms) == 20
    assert model.fc.weight.grad is not None
    assert norms["fc"] == pytest.approx(model.fc.weight.grad.norm().item())
