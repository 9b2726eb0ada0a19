"""Which network the command line means, and what contradicts it."""

import pytest

from export.errors import ExportError
from export.sources.network_spec import NetworkSpec, parse_choice
from training.networks.resnet import architecture


@pytest.mark.parametrize(
    ("variants", "expected"),
    [
        ([], NetworkSpec(50)),
        (["plain"], NetworkSpec(50, plain=True)),
        (["C"], NetworkSpec(50, shortcut="C")),
        (["b,v1"], NetworkSpec(50, shortcut="B", stride_in="1x1")),
        (["V1.5", "a"], NetworkSpec(50, shortcut="A", stride_in="3x3")),
        ([" Plain , v1 "], NetworkSpec(50, plain=True, stride_in="1x1")),
    ],
)
def test_variants_are_words_between_commas_in_any_case(variants: list[str], expected: NetworkSpec) -> None:
    assert parse_choice(50, variants) == expected


@pytest.mark.parametrize("variants", [["v2"], [""], ["A,B"], ["v1", "v1.5"], ["plain,A"]])
def test_unknown_and_contradicting_variants_are_refused(variants: list[str]) -> None:
    with pytest.raises(ExportError, match="variant"):
        parse_choice(50, variants)


@pytest.mark.parametrize(
    ("depth", "variants", "network"),
    [(20, [], "resnet20"), (50, ["v1"], "resnet50"), (34, ["plain"], "plain34"), (1202, ["A"], "resnet1202")],
)
def test_a_depth_names_a_network_of_its_family(depth: int, variants: list[str], network: str) -> None:
    assert parse_choice(depth, variants).architecture().network == network


@pytest.mark.parametrize(("depth", "variants"), [(None, []), (21, []), (0, []), (20, ["v1"]), (18, ["v1.5"])])
def test_a_network_that_does_not_exist_is_refused(depth: int | None, variants: list[str]) -> None:
    with pytest.raises(ExportError, match=r"--depth"):
        parse_choice(depth, variants).architecture()


def test_options_that_are_not_given_contradict_nothing() -> None:
    for network in ("resnet20", "plain20", "resnet50"):
        assert NetworkSpec().contradictions(architecture(network)) == []
    assert NetworkSpec(20).contradictions(architecture("plain20")) == []


@pytest.mark.parametrize(
    ("choice", "network", "phrase"),
    [
        (NetworkSpec(56), "resnet20", "--depth is 56, the run's network has 20 layers"),
        (NetworkSpec(plain=True), "resnet20", "--variant is plain, the run's network has shortcuts"),
        (NetworkSpec(shortcut="C"), "resnet20", "--variant is C, the run's network has shortcuts A"),
        (NetworkSpec(shortcut="C"), "plain20", "--variant is C, the run's network has none"),
        (NetworkSpec(stride_in="1x1"), "resnet50", "--variant is v1, the run's network is v1.5"),
        (NetworkSpec(stride_in="1x1"), "resnet18", "--variant is v1, the run's network is without bottlenecks"),
    ],
)
def test_a_contradiction_names_the_given_and_the_actual_value(choice: NetworkSpec, network: str, phrase: str) -> None:
    assert choice.contradictions(architecture(network)) == [phrase]
