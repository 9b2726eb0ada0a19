import json

import pytest
from typer.testing import CliRunner

from training.cli import main
from training.networks.cost import all_costs, cost_of, relative_to_vgg19, vgg_cost
from training.networks.resnet import build

# Table 6 of the paper and the counts that follow from its descriptions: network, shortcut, stride, parameters, millions
# of multiply-adds.
KNOWN = [
    ("resnet20", "A", None, 269_722, 40.6),
    ("resnet32", "A", None, 464_154, 68.9),
    ("resnet44", "A", None, 658_586, 97.2),
    ("resnet56", "A", None, 853_018, 125.5),
    ("resnet110", "A", None, 1_727_962, 252.9),
    ("resnet1202", "A", None, 19_421_274, 2829.2),
    ("resnet18", "A", None, 11_515_688, 1794.8),
    ("resnet18", "B", None, 11_689_512, 1814.1),
    ("resnet18", "C", None, 12_043_816, 1878.3),
    ("resnet34", "A", None, 21_623_848, 3644.5),
    ("resnet34", "B", None, 21_797_672, 3663.8),
    ("resnet34", "C", None, 22_716_840, 3830.7),
    ("resnet50", "B", "1x1", 25_557_032, 3858.0),
    ("resnet50", "B", "3x3", 25_557_032, 4089.2),
    ("resnet101", "B", "1x1", 44_549_160, 7570.2),
    ("resnet101", "B", "3x3", 44_549_160, 7801.4),
    ("resnet152", "B", "1x1", 60_192_808, 11282.4),
    ("resnet152", "B", "3x3", 60_192_808, 11513.6),
]


@pytest.mark.parametrize(("network", "shortcut", "stride_in", "parameters", "millions"), KNOWN)
def test_parameters_and_multiply_adds_are_the_known_ones(
    network: str, shortcut: str, stride_in: str | None, parameters: int, millions: float
) -> None:
    cost = cost_of(network, shortcut, stride_in)
    assert cost.parameters == parameters
    assert cost.multiply_adds / 1e6 == pytest.approx(millions, abs=0.06)


def test_counting_equal_blocks_once_agrees_with_the_whole_network() -> None:
    whole = build("resnet56", shortcut="C")
    assert cost_of("resnet56", "C").parameters == sum(parameter.numel() for parameter in whole.parameters())


def test_a_plain_network_costs_what_its_twin_with_free_shortcuts_costs() -> None:
    plain, residual = cost_of("plain34"), cost_of("resnet34", "A")
    assert (plain.parameters, plain.multiply_adds) == (residual.parameters, residual.multiply_adds)


def test_vgg_is_counted_from_its_layers() -> None:
    assert vgg_cost(16).parameters == 138_357_544
    assert vgg_cost(19).parameters == 143_667_240
    assert vgg_cost(19).multiply_adds / 1e9 == pytest.approx(19.63, abs=0.01)


def test_resnet34_needs_under_a_fifth_of_vgg19s_multiply_adds() -> None:
    shares = relative_to_vgg19(cost_of("resnet34"))
    assert shares["multiply_adds_relative_to_vgg19"] == pytest.approx(0.187, abs=0.001)


def test_the_command_prints_every_network_as_a_table_and_as_json() -> None:
    as_json = CliRunner().invoke(main, ["cost", "--format", "json"])
    rows = json.loads(as_json.stdout)["networks"]
    assert {(row["network"], row["shortcut"], row["stride_in"]) for row in rows} == {
        (cost.network, cost.shortcut, cost.stride_in) for cost in all_costs()
    }
    table = CliRunner().invoke(main, ["cost"]).stdout
    assert all(row["network"] in table for row in rows)
