import pytest
import torch
from torch.nn import functional as F

from training.evaluation.loss_surface import coordinates, filter_normalized_direction, loss_surface
from training.networks.resnet import build

IMAGES, LABELS = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.arange(4)


def test_each_filter_of_a_direction_has_the_norm_of_the_networks() -> None:
    network = build("resnet8")
    direction = filter_normalized_direction(network, torch.Generator().manual_seed(1))
    weights = [parameter for parameter in network.parameters() if parameter.ndim > 1]
    assert len(direction) == len(weights)
    for one, weight in zip(direction, weights, strict=True):
        torch.testing.assert_close(one.flatten(1).norm(dim=1), weight.detach().flatten(1).norm(dim=1))


def test_the_middle_is_the_loss_of_the_network_which_stays_as_it_was() -> None:
    network = build("resnet8").eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    expected = float(F.cross_entropy(network(IMAGES), LABELS).detach())
    rows = loss_surface(network, IMAGES, LABELS, coordinates(3, 1.0))
    assert rows[1][1] == pytest.approx(expected, rel=1e-5)
    assert len({value for row in rows for value in row}) == 9
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_equal_seeds_give_equal_surfaces() -> None:
    network = build("resnet8")
    first, again, other = (loss_surface(network, IMAGES, LABELS, coordinates(3, 1.0), seed=seed) for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("points", [1, 4])
def test_a_number_of_points_without_a_middle_is_refused(points: int) -> None:
    with pytest.raises(ValueError, match="odd"):
        coordinates(points, 1.0)
