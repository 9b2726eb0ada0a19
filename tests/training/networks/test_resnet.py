import pytest
import torch
from torch import nn

from training.networks.resnet import ZeroPadShortcut, architecture, build, load_weights, zero_init_residual


def test_the_state_dict_has_torchvisions_names() -> None:
    names = set(build("resnet50").state_dict())
    for expected in (
        "conv1.weight",
        "bn1.running_var",
        "layer1.0.conv3.weight",
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.bias",
        "layer3.5.bn2.num_batches_tracked",
        "layer4.2.conv2.weight",
        "fc.bias",
    ):
        assert expected in names
    assert "layer1.1.downsample.0.weight" not in names


@pytest.mark.parametrize(
    ("network", "classes", "side"), [("resnet20", 10, 32), ("plain20", 10, 32), ("resnet18", 7, 64)]
)
def test_a_network_gives_one_logit_a_class_and_pools_its_features(network: str, classes: int, side: int) -> None:
    model = build(network, num_classes=classes).eval()
    images = torch.randn(2, 3, side, side)
    features = model.features(images)
    assert features.shape[:2] == (2, model.embedding_size)
    torch.testing.assert_close(model(images), model.fc(features.mean((2, 3))))
    assert model(images).shape == (2, classes)


def test_the_stride_of_a_bottleneck_is_in_the_1x1_for_v1_and_in_the_3x3_for_v1_5() -> None:
    v1 = build("resnet50", stride_in="1x1").get_submodule("layer2.0")
    v1_5 = build("resnet50").get_submodule("layer2.0")
    assert (v1.conv1.stride, v1.conv2.stride) == ((2, 2), (1, 1))
    assert (v1_5.conv1.stride, v1_5.conv2.stride) == ((1, 1), (2, 2))


def test_shortcut_a_subsamples_and_pads_new_channels_with_zeros() -> None:
    images = torch.arange(2 * 4 * 4, dtype=torch.float32).reshape(1, 2, 4, 4)
    out = ZeroPadShortcut(2, 5, stride=2)(images)
    torch.testing.assert_close(out[:, :2], images[:, :, ::2, ::2])
    assert out.shape == (1, 5, 2, 2) and not out[:, 2:].any()


@pytest.mark.parametrize(("shortcut", "projections"), [("A", 0), ("B", 2), ("C", 9)])
def test_projections_stand_where_the_paper_puts_them(shortcut: str, projections: int) -> None:
    names = build("resnet20", shortcut=shortcut).state_dict()
    assert sum(name.endswith("downsample.0.weight") for name in names) == projections


def test_a_plain_network_is_its_residual_twin_without_the_additions() -> None:
    residual, plain = build("resnet20"), build("plain20")
    assert residual.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(residual.state_dict())
    block = plain.eval().get_submodule("layer1.0")
    x = torch.rand(1, 16, 8, 8)
    expected = torch.relu(block.bn2(block.conv2(torch.relu(block.bn1(block.conv1(x))))))
    torch.testing.assert_close(block(x), expected)
    assert not torch.allclose(residual.eval().get_submodule("layer1.0")(x), expected)


def test_convolutions_start_with_he_variance() -> None:
    convolution = build("resnet50").get_submodule("layer3.0.conv2")
    assert isinstance(convolution, nn.Conv2d)
    assert convolution.weight.std().item() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("network", "shortcut", "stride_in", "words"),
    [
        ("vgg19", None, None, "no network is called 'vgg19'; try resnet20"),
        ("resnt50", None, None, "no network is called 'resnt50'; did you mean 'resnet50'?"),
        ("resnet_110", None, None, "did you mean 'resnet110'?"),
        ("resnet21", None, None, "no network has 21 layers"),
        ("plain20", "A", None, "has no shortcut"),
        ("resnet20", "D", None, "no shortcut is called"),
        ("resnet34", None, "1x1", "has no bottlenecks"),
        ("resnet50", None, "5x5", "not in '5x5'"),
    ],
)
def test_what_does_not_exist_is_refused_by_name(
    network: str, shortcut: str | None, stride_in: str | None, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        architecture(network, shortcut, stride_in)


def test_weights_of_another_network_are_refused_with_names_and_shapes() -> None:
    model = build("resnet20", num_classes=3)
    with pytest.raises(ValueError, match=r"resnet20: .*fc.weight \(10, 64\) instead of \(3, 64\)"):
        load_weights(model, build("resnet20").state_dict())
    with pytest.raises(ValueError, match=r"has the unknown layer1.3.conv1.weight, .* more"):
        load_weights(model, build("resnet32", num_classes=3).state_dict())


def test_weights_carry_the_per_pixel_mean_of_the_papers_recipe() -> None:
    source, target = build("resnet20").eval(), build("resnet20").eval()
    assert "pixel_mean" not in source.state_dict()
    source.pixel_mean = torch.randn(3, 32, 32)
    load_weights(target, source.state_dict())
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(target(images), source(images))


@pytest.mark.parametrize(
    ("stem", "kernel", "side", "maps"), [("7x7", 7, 224, 7), ("3x3", 3, 64, 4), ("3x3-pool", 3, 64, 4)]
)
def test_stems_of_the_imagenet_family(stem: str, kernel: int, side: int, maps: int) -> None:
    network = build("resnet18", num_classes=7, stem=stem).eval()
    assert (network.architecture.stem, network.architecture.image_size) == (stem, side)
    assert network.conv1.weight.shape == (64, 3, kernel, kernel)
    assert network.features(torch.zeros(1, 3, side, side)).shape == (1, 512, maps, maps)
    names = build("resnet18", num_classes=7).state_dict().keys()
    assert network.state_dict().keys() == names  # torchvision's, whatever the stem


def test_a_stem_that_does_not_exist_or_is_not_for_the_network_is_refused() -> None:
    with pytest.raises(ValueError, match="no stem is called '5x5'; there are 7x7, 3x3, 3x3-pool"):
        architecture("resnet18", stem="5x5")
    with pytest.raises(ValueError, match="resnet20 has the CIFAR family's stem"):
        architecture("resnet20", stem="3x3")
    assert architecture("resnet20").stem is None


@pytest.mark.parametrize("network", ["resnet20", "resnet18", "resnet50"])
def test_blocks_without_projection_begin_as_the_identity_with_zero_init(network: str) -> None:
    model = build(network, num_classes=4).eval()
    block = next(iter(model.stages()))[1]
    images = torch.rand(1, model.bn1.num_features * block.expansion, 8, 8)  # as after a ReLU
    assert not torch.equal(block(images), images)
    zero_init_residual(model)
    assert torch.equal(block(images), images)


def test_a_plain_network_has_no_residual_to_begin_at_zero() -> None:
    with pytest.raises(ValueError, match=r"plain20 is a plain network"):
        zero_init_residual(build("plain20"))
