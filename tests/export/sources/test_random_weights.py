"""Untrained networks behave at any depth: finite, different labels for different images, PyTorch and ONNX agree."""

import copy
from collections import Counter

import pytest
import torch
from torch import Tensor

from export.graph.to_onnx import Normalize
from export.sources.network_spec import parse_choice
from export.sources.sample_images import sample_pixels
from export.sources.trained import Source, from_random_weights

SMALL = [(20, ""), (56, ""), (20, "plain"), (110, "plain"), (32, "B"), (44, "C"), (110, "C")]
LARGE = [(18, ""), (34, "A"), (34, "plain"), (50, ""), (50, "v1"), (50, "C"), (101, ""), (152, ""), (1202, "")]


def random_source(depth: int, variant: str, seed: int = 0) -> Source:
    return from_random_weights(parse_choice(depth, [variant] if variant else []), None, seed)


@torch.inference_mode()
def logits(source: Source) -> Tensor:
    pixels = torch.from_numpy(sample_pixels(source.preprocessing))
    return source.network(Normalize(source.preprocessing)(pixels))


def behaves(source: Source) -> None:
    got = logits(source)
    assert torch.isfinite(got).all()
    assert got.mean().item() == pytest.approx(0, abs=1e-3)
    assert got.std(correction=0).item() == pytest.approx(2, rel=1e-3)
    labels = Counter(got.argmax(dim=1).tolist())
    assert len(labels) >= 4
    assert labels.most_common(1)[0][1] <= len(got) * 3 / 4


def rounding_stays_small(source: Source) -> None:
    """Compare with the same network in double precision, as parity will compare with another program."""
    exact = copy.copy(source)
    network = copy.deepcopy(source.network).double()
    pixels = torch.from_numpy(sample_pixels(exact.preprocessing))
    with torch.inference_mode():
        wanted = network(Normalize(source.preprocessing)(pixels).double()).softmax(dim=1)
    assert (logits(source).softmax(dim=1) - wanted).abs().max().item() < 1e-5


@pytest.mark.parametrize(("depth", "variant"), SMALL)
def test_a_network_for_small_images_behaves(depth: int, variant: str) -> None:
    source = random_source(depth, variant)
    behaves(source)
    rounding_stays_small(source)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("depth", "variant"), LARGE)
def test_a_large_network_behaves(depth: int, variant: str) -> None:
    source = random_source(depth, variant)
    behaves(source)
    rounding_stays_small(source)


def test_the_seed_decides_everything_and_nothing_else_is_disturbed() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (random_source(8, "", seed).network.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["conv1.weight"], other["conv1.weight"])


def test_labels_are_numbered_unless_they_are_given() -> None:
    assert random_source(8, "").labels == tuple(f"class_{index}" for index in range(10))
    named = from_random_weights(parse_choice(8, []), ["cat", "dog", "eel"], 0)
    assert named.labels == ("cat", "dog", "eel")
    assert named.network.num_classes == 3
