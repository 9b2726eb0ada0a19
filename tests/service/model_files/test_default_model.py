"""Which model answers when a request names none."""

import pytest

from service.model_files.default_model import AmbiguousDefault, default_of


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("anything",), "anything"),
        (("cifar10-resnet20", "cifar10-resnet56"), "cifar10-resnet56"),
        (("cifar10-resnet110", "cifar10-resnet56"), "cifar10-resnet56"),
        (("cifar10-resnet56", "everyday-resnet18"), "everyday-resnet18"),
        (("everyday-resnet18", "everyday-resnet50"), "everyday-resnet50"),
        (("cifar10-resnet56", "everyday-resnet50", "imagenet-resnet18"), "imagenet-resnet18"),
        (("imagenet-resnet50-int8", "imagenet-resnet50"), "imagenet-resnet50"),
        (("imagenet-resnet50-int8", "everyday-resnet50"), "imagenet-resnet50-int8"),
        (("imagenet-resnet50", "pets-resnet18", "everyday-resnet18"), "pets-resnet18"),
        (("pets-resnet18", "pets-resnet18-int8", "cifar10-resnet56"), "pets-resnet18"),
        (("random-resnet50", "cifar10-resnet20"), "cifar10-resnet20"),
        (("imagenet", "everyday-resnet18"), "imagenet"),
    ],
)
def test_your_own_comes_first_then_imagenet_then_everyday_things_then_cifar10(
    names: tuple[str, ...], expected: str
) -> None:
    assert default_of(names).name == default_of(reversed(names)).name == expected


def test_several_models_of_your_own_leave_it_open() -> None:
    with pytest.raises(AmbiguousDefault) as undecided:
        default_of(["pets", "cars", "cars-int8", "imagenet-resnet50"])
    assert undecided.value.names == ["cars", "cars-int8", "pets"]


def test_the_reason_is_said() -> None:
    assert default_of(["pets"]).reason == "the only model"
    assert "your own come before" in default_of(["pets", "imagenet-resnet50"]).reason
    assert "imagenet-* comes first" in default_of(["everyday-resnet18", "imagenet-resnet50"]).reason
