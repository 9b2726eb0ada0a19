"""One frozen `Recipe` for each experiment: data, not code, with the error to expect and its source beside it."""

import dataclasses
from collections.abc import Iterable

from training.networks.resnet import architecture
from training.networks.suggestion import did_you_mean
from training.recipes.recipe import Recipe, changed

CIFAR_DEPTHS = (20, 32, 44, 56, 110)
_FIRST_CAUTIOUS_DEPTH = 110

# Table 6 of the paper; for 110 layers the best of five runs.
_PAPER_ERRORS = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43, 1202: 7.93}


def _paper_cifar(network: str, depth: int) -> Recipe:
    """Section 4.2: SGD with momentum, 64k steps of 128, the rate divided by ten at 32k and 48k, everything decayed.

    The deepest nets begin with a rate of 0.01, until they have begun to learn.
    """
    return Recipe(
        name=f"paper-{network}",
        network=network,
        subtract="pixel_mean",
        steps=64_000,
        schedule="steps",
        learning_rate=0.1,
        milestones=(0.5, 0.75),
        cautious_rate=0.01 if depth >= _FIRST_CAUTIOUS_DEPTH and network.startswith("resnet") else None,
        weight_decay=1e-4,
        expected_error=_PAPER_ERRORS[depth] if network.startswith("resnet") else None,
        source="He et al. 2015, table 6" if network.startswith("resnet") else "He et al. 2015, figure 6: a curve",
    )


# Of the two networks that ship.
_MODERN_ERRORS = {20: 7.97, 56: 6.49}


def _modern_cifar(depth: int, expected_error: float | None) -> Recipe:
    """Later improvements: Nesterov, cosine, stronger decay but not of norms and biases, weight averaging."""
    return Recipe(
        name=f"modern-resnet{depth}",
        network=f"resnet{depth}",
        flip="alternating",
        epochs=70,
        held_out_images=2_000,
        schedule="cosine",
        learning_rate=0.2,
        warmup=0.05,
        nesterov=True,
        weight_decay=5e-4,
        decay_norms_and_biases=False,
        ema_decay=0.995,
        expected_error=expected_error,
        source="this project",
    )


# Tables 2 and 3 of the paper: top-1, 10-crop. By network and shortcut.
_PAPER_IMAGENET_ERRORS = {
    ("plain18", None): 27.94,
    ("plain34", None): 28.54,
    ("resnet18", "A"): 27.88,
    ("resnet34", "A"): 25.03,
    ("resnet34", "B"): 24.52,
    ("resnet34", "C"): 24.19,
    ("resnet50", "B"): 22.85,
    ("resnet101", "B"): 21.75,
    ("resnet152", "B"): 21.43,
}


def _paper_imagenet(network: str, shortcut: str | None) -> Recipe:
    """Section 3.4: 600k steps of 256, the shorter side random in 256…480, Krizhevsky's colour shifts.

    The paper divides the rate by ten whenever the error stops falling; as in the usual reproductions (fb.resnet.torch:
    epochs 30 and 60 of 90) that is at one and two thirds of the run here. Deeper networks have the paper's v1
    bottlenecks. Its batch-norm statistics are averages over many training images, made after the training.
    """
    return Recipe(
        name=f"paper-{network}",
        network=network,
        shortcut=shortcut,
        stride_in="1x1" if network in ("resnet50", "resnet101", "resnet152") else None,
        image_size=224,
        test_shorter_side=256,
        crop="scale_jitter",
        pca_colour=0.1,
        subtract="pixel_mean",
        steps=600_000,
        batch_size=256,
        schedule="steps",
        learning_rate=0.1,
        milestones=(1 / 3, 2 / 3),
        weight_decay=1e-4,
        precise_bn_images=25_600,
        expected_error=_PAPER_IMAGENET_ERRORS[network, shortcut],
        expected_on="ImageNet, 10-crop",
        source="He et al. 2015, tables 2 and 3",
    )


def _modern_imagenet(depth: int, expected_error: float) -> Recipe:
    """A short training in the manner of FFCV: 16 epochs on small images with a high rate, tested on larger ones.

    The expected errors are of FFCV's own runs, which also have BlurPool, growing images and mirrored views.
    """
    return Recipe(
        name=f"modern-resnet{depth}",
        network=f"resnet{depth}",
        image_size=176,
        test_size=224,
        test_shorter_side=256,
        crop="random_resized",
        epochs=16,
        batch_size=1024,
        norm_batch=None,
        held_out_images=10_000,
        learning_rate=2.0,
        warmup=1 / 8,
        nesterov=True,
        weight_decay=5e-5,
        decay_norms_and_biases=False,
        label_smoothing=0.1,
        expected_error=expected_error,
        expected_on="ImageNet, 1-crop",
        source="after FFCV's README, 16 epochs",
    )


_FIRST_ZERO_INIT_DEPTH = 50


def _everyday(depth: int, epochs: int, sizes: tuple[tuple[float, int], ...]) -> Recipe:
    """A general classifier trained on 64 x 64 images (Tiny ImageNet's 200 classes), within some hours on two cores.

    The small images at the beginning cost a fraction of the full ones; the last part of the run fixes the difference.
    A run this short ends before it overfits, so neither mixup nor random erasing is part of it.
    """
    return Recipe(
        name=f"everyday-resnet{depth}",
        network=f"resnet{depth}",
        stem="3x3",
        # Without it ResNet-50's loss climbs from 5.3 to 6.1 in the first 100 steps. ResNet-18 does not need it.
        zero_init_residual=depth >= _FIRST_ZERO_INIT_DEPTH,
        image_size=64,
        # Random crops enlarge objects; a larger image in testing restores their size. Chosen on held-out images, of 64
        # (45.1% top-1), 72 (44.2), 80 (49.5), 88 (45.2) and 96 (47.5): multiples of the stride of 16 keep maps aligned.
        test_size=80,
        test_shorter_side=80,
        progressive_sizes=sizes,
        crop="random_resized",
        crop_area=(0.35, 1.0),
        epochs=epochs,
        held_out_images=4_000,
        learning_rate=0.1,
        warmup=0.05,
        nesterov=True,
        weight_decay=5e-4,
        decay_norms_and_biases=False,
        label_smoothing=0.1,
        ema_decay=0.9,
        expected_on="Tiny ImageNet, one view",
        source="this project",
    )


def _torchvision_v2(depth: int, expected_error: float) -> Recipe:
    """The training of torchvision's second weights, without its repeated augmentation (worth 0.2 points)."""
    return Recipe(
        name=f"torchvision-v2-resnet{depth}",
        network=f"resnet{depth}",
        image_size=176,
        test_size=224,
        test_shorter_side=232,
        crop="random_resized",
        trivial_augment=True,
        random_erasing=0.1,
        epochs=600,
        batch_size=1024,
        norm_batch=None,
        held_out_images=10_000,
        learning_rate=0.5,
        warmup=5 / 600,
        weight_decay=2e-5,
        decay_norms_and_biases=False,
        label_smoothing=0.1,
        mixup=0.2,
        cutmix=1.0,
        ema_decay=0.9989,  # torchvision's 0.99998 an image-scaled step: 1 - 2e-5 * 1024 * 32 / 600
        ema_every=32,
        expected_error=expected_error,
        expected_on="ImageNet, 1-crop",
        source="torchvision's blog on V2 weights",
    )


def _finetune() -> Recipe:
    """A short training from others' weights, for a folder of tens to thousands of images.

    Small steps of few images, so that thirty images still give many of them; the first stages, which see edges and
    textures, are kept as they are, which halves the work.
    """
    return Recipe(
        name="finetune",
        network="resnet50",
        weights="published",
        freeze="layer1",  # 25% wrong on 40 photos, 50% without (decision 25)
        image_size=224,
        test_shorter_side=256,
        crop="random_resized",
        crop_area=(0.25, 1.0),  # a smaller part may not show the object
        crop_padding=28,  # of crop=pad, if the user sets that: without decoding each image anew
        epochs=20,
        batch_size=16,
        held_out_share=0.2,
        max_skipped=0.5,
        learning_rate=0.01,  # 37 to 42% wrong with 0.03 or twice the epochs
        warmup=0.1,
        nesterov=True,
        decay_norms_and_biases=False,
        layer_decay=0.9,
        label_smoothing=0.1,
        choose_best="loss",  # with few held-out images it is finer than the error
        early_stopping_patience=8,
        expected_on="your own images",
        source="this project",
    )


_ALL = (
    *(_paper_cifar(f"{family}{depth}", depth) for family in ("resnet", "plain") for depth in CIFAR_DEPTHS),
    _paper_cifar("resnet1202", 1202),
    *(_modern_cifar(depth, _MODERN_ERRORS.get(depth)) for depth in CIFAR_DEPTHS),
    *(_paper_imagenet(f"plain{depth}", None) for depth in (18, 34)),
    _paper_imagenet("resnet18", "A"),
    *(_paper_imagenet(f"resnet{depth}", "B") for depth in (34, 50, 101, 152)),
    *(_modern_imagenet(depth, error) for depth, error in ((18, 33.1), (50, 26.2))),
    *(_everyday(depth, 9, ((0.0, 32), (0.5, 48), (0.85, 64))) for depth in (18, 50)),
    _finetune(),
    *(_torchvision_v2(depth, error) for depth, error in ((50, 19.33), (101, 18.11), (152, 17.72))),
)
RECIPES = {recipe.name: recipe for recipe in _ALL}


def chosen(name: str, assignments: Iterable[str] = ()) -> Recipe:
    """Return the recipe of that name, changed as by `changed`; the expected error is that of the chosen shortcut.

    Raises ValueError for a recipe, a field, a value or a network that does not exist.
    """
    if name not in RECIPES:
        advice = did_you_mean(name, RECIPES) or f"there are {', '.join(RECIPES)}"
        raise ValueError(f"no recipe is called {name!r}; {advice}")
    recipe = RECIPES[name]
    new = changed(recipe, assignments)
    described = architecture(new.network, new.shortcut, new.stride_in, new.stem)
    if described != architecture(recipe.network, recipe.shortcut, recipe.stride_in, recipe.stem):
        is_in_the_paper = name.startswith("paper") and described.stride_in != "3x3"
        error = _PAPER_IMAGENET_ERRORS.get((described.network, described.shortcut)) if is_in_the_paper else None
        new = dataclasses.replace(new, expected_error=error)
    return new
