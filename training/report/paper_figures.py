"""The figures of the paper and of other implementations: data only, errors in percent.

The paper's CIFAR-10 errors stand with the recipes (`training.recipes.catalog`); here is what no recipe holds.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Published:
    """One published error of one network, and how it was measured."""

    network: str
    source: str
    test_error: float
    how: str
    train_error: float | None = None


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# The paper's table 6 gives ResNet-110 as "best (mean ± sd)" of five runs.
PAPER_SEED_DEVIATION = 0.16

_AKAMASTER, _GCR = "akamaster/pytorch_resnet_cifar10", "gcr/torch-residual-networks"
_HHHHUANGGGG = "hhhhuangggg/resnet-cifar10-reproducti"
_BEST_OF_EPOCHS = "best epoch, chosen on the test set"
_ONE_SEED = "best epoch, 64,000 steps, one seed; training error at the end"
_ONE_CROP = "ImageNet, one crop"

PUBLISHED = (
    Published("resnet-20", _AKAMASTER, 8.27, _BEST_OF_EPOCHS),
    Published("resnet-32", _AKAMASTER, 7.37, _BEST_OF_EPOCHS),
    Published("resnet-44", _AKAMASTER, 6.90, _BEST_OF_EPOCHS),
    Published("resnet-56", _AKAMASTER, 6.61, _BEST_OF_EPOCHS),
    Published("resnet-110", _AKAMASTER, 6.32, _BEST_OF_EPOCHS),
    Published("resnet-20", _GCR, 8.29, "as its README states"),
    Published("resnet-32", _GCR, 7.63, "as its README states"),
    Published("resnet-44", _GCR, 7.14, "as its README states"),
    Published("resnet-56", _GCR, 6.94, "as its README states"),
    Published("resnet-110", _GCR, 6.73, "as its README states"),
    Published("plain-20", _HHHHUANGGGG, 9.30, _ONE_SEED, 1.12),
    Published("plain-56", _HHHHUANGGGG, 12.03, _ONE_SEED, 3.75),
    Published("resnet-20", _HHHHUANGGGG, 8.07, _ONE_SEED, 0.61),
    Published("resnet-56", _HHHHUANGGGG, 6.92, _ONE_SEED, 0.06),
    Published("resnet-18", "fb.resnet.torch", 30.41, _ONE_CROP),
    Published("resnet-34", "fb.resnet.torch", 26.73, _ONE_CROP),
    Published("resnet-50", "fb.resnet.torch", 24.01, _ONE_CROP),
    Published("resnet-101", "fb.resnet.torch", 22.44, _ONE_CROP),
)


@dataclass(frozen=True, slots=True)
class PaperCost:
    """A row of the paper's tables 1 and 3: billions of multiply-adds, top-1 error of ten crops on ImageNet."""

    network: str
    shortcut: str | None
    multiply_adds: float
    top1_error: float | None


PAPER_COSTS = (
    PaperCost("resnet18", "A", 1.8, 27.88),
    PaperCost("resnet34", "A", 3.6, 25.03),
    PaperCost("resnet34", "B", 3.6, 24.52),
    PaperCost("resnet34", "C", 3.6, 24.19),
    PaperCost("resnet50", "B", 3.8, 22.85),
    PaperCost("resnet101", "B", 7.6, 21.75),
    PaperCost("resnet152", "B", 11.3, 21.43),
    PaperCost("vgg16", None, 15.3, 28.07),
    PaperCost("vgg19", None, 19.6, None),
)


def paper_shortcut_spread() -> float:
    """Return the widest difference that the shortcuts make in the paper: ResNet-34 on ImageNet, in points."""
    errors = [row.top1_error for row in PAPER_COSTS if row.network == "resnet34" and row.top1_error is not None]
    return max(errors) - min(errors)
