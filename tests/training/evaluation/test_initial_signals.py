import torch

from training.evaluation.initial_signals import NARROW, Setup, measure, remove_batch_norm
from training.networks.resnet import build

IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(4)


def test_batch_norm_keeps_the_responses_at_one_and_narrow_weights_without_it_lose_them() -> None:
    healthy = measure(Setup("plain14"), IMAGES, LABELS, [0])
    vanishing = measure(Setup("plain14", batch_norm=False, initialization=NARROW), IMAGES, LABELS, [0])
    assert {len(values) for values in (healthy.response, healthy.backward, healthy.gradient_over_weight)} == {13}
    assert all(abs(response - 1) < 0.1 for response in healthy.response)
    assert vanishing.response[-1] < 1e-6
    assert vanishing.backward[0] < 1e-6 * vanishing.backward[-1]


def test_a_gradient_is_relative_to_the_norm_of_its_weights() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build("plain8").double().train()
    torch.nn.functional.cross_entropy(network(IMAGES.double()), LABELS).backward()  # type: ignore[no-untyped-call]
    weight = network.conv1.weight
    assert weight.grad is not None
    expected = float(weight.grad.norm() / weight.detach().norm())
    measured = measure(Setup("plain8"), IMAGES, LABELS, [0]).gradient_over_weight[0]
    assert abs(measured / expected - 1) < 1e-9


def test_seeds_are_averaged_geometrically_and_leave_the_global_generator_as_it_was() -> None:
    before = torch.get_rng_state()
    one, other = (measure(Setup("plain8"), IMAGES, LABELS, [seed]).backward[0] for seed in (0, 1))
    both = measure(Setup("plain8"), IMAGES, LABELS, [0, 1]).backward[0]
    assert abs(both / (one * other) ** 0.5 - 1) < 1e-9
    assert torch.equal(before, torch.get_rng_state())


def test_removing_batch_norm_leaves_none() -> None:
    network = build("resnet8")
    remove_batch_norm(network)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())
