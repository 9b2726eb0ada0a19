"""Each operation of TrivialAugment does what Pillow's does; which one an image gets follows from the numbers alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from training.augmentation.trivial_augment import OPERATIONS, trivial_augment

SIDE = 48
MOVING = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
PHOTOS = sorted((Path(__file__).parents[4] / "shared" / "data").rglob("*.jpg"))[:4]


def image(seed: int) -> Image.Image:
    """An image with smooth parts, noise, and a darkest and brightest value of its own in each channel."""
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    smooth = np.asarray(small.resize((SIDE, SIDE), Image.Resampling.BICUBIC), float)
    values = smooth * random.uniform(0.5, 0.9, 3) + random.uniform(5, 25, 3) + random.normal(0, 4, smooth.shape)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def affine(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


WITH_PILLOW: dict[str, Callable[[float], Callable[[Image.Image], Image.Image]]] = {
    "identity": lambda _: lambda image: image,
    "shear_x": lambda shear: affine(1, shear, 0, 0, 1, 0),
    "shear_y": lambda shear: affine(1, 0, 0, shear, 1, 0),
    "translate_x": lambda shift: affine(1, 0, shift, 0, 1, 0),
    "translate_y": lambda shift: affine(1, 0, 0, 0, 1, shift),
    "rotate": lambda angle: lambda image: image.rotate(angle),
    "brightness": lambda factor: lambda image: ImageEnhance.Brightness(image).enhance(factor),
    "colour": lambda factor: lambda image: ImageEnhance.Color(image).enhance(factor),
    "contrast": lambda factor: lambda image: ImageEnhance.Contrast(image).enhance(factor),
    "sharpness": lambda factor: lambda image: ImageEnhance.Sharpness(image).enhance(factor),
    "posterize": lambda bits: lambda image: ImageOps.posterize(image, int(bits)),
    "solarize": lambda threshold: lambda image: ImageOps.solarize(image, threshold),
    "auto_contrast": lambda _: ImageOps.autocontrast,
    "equalize": lambda _: ImageOps.equalize,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_that_of_pillow(name: str) -> None:
    operate, strength = OPERATIONS[name]
    steps = np.linspace(-1, 1, 11)
    images = [image(seed) for seed in range(len(steps))]
    strengths = [strength(float(step)) for step in steps]
    batch = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    ours = operate(batch, torch.tensor(strengths)).int().numpy()
    theirs = np.stack([np.asarray(WITH_PILLOW[name](s)(image)) for s, image in zip(strengths, images, strict=True)])
    assert ours.shape == theirs.shape and ours.dtype != object
    different = np.abs(ours - theirs.astype(int))
    if name in MOVING:
        assert (different > 0).mean() < 0.004  # which of two neighbours is the nearest
    else:
        assert different.max() <= 1 and (different > 0).mean() < 0.01
    if name != "identity":
        assert not np.array_equal(ours, batch.numpy())


@pytest.mark.shared
@pytest.mark.skipif(not PHOTOS, reason="the shared data folder is not beside the checkout")
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name not in MOVING])
def test_on_photos_too_an_operation_is_that_of_pillow(name: str) -> None:
    operate, strength = OPERATIONS[name]
    for path, step in zip(PHOTOS, (-0.9, -0.3, 0.3, 0.9), strict=False):
        with Image.open(path) as file:
            photo = file.convert("RGB").resize((224, 224))
        ours = operate(torch.from_numpy(np.array(photo))[None], torch.tensor([strength(step)]))[0].int().numpy()
        theirs = np.asarray(WITH_PILLOW[name](strength(step))(photo)).astype(int)
        assert np.abs(ours - theirs).max() <= 1 and (ours != theirs).mean() < 0.01


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("name", ["auto_contrast", "equalize", "contrast", "sharpness"])
def test_an_image_of_one_colour_is_left_as_pillow_leaves_it(name: str, value: int) -> None:
    flat = Image.new("RGB", (8, 8), (value, 3, 90))
    ours = OPERATIONS[name][0](torch.from_numpy(np.array(flat))[None], torch.tensor([1.5]))[0].numpy()
    assert np.abs(ours.astype(int) - np.asarray(WITH_PILLOW[name](1.5)(flat)).astype(int)).max() <= 1


def batch_of(count: int) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(image(seed)) for seed in range(count)]))


def test_the_parts_of_a_batch_are_those_of_the_whole() -> None:
    images = batch_of(20)
    whole = trivial_augment(images, torch.Generator().manual_seed(3), 20, slice(0, 20))
    parts = [
        trivial_augment(images[part], torch.Generator().manual_seed(3), 20, part)
        for part in (slice(0, 7), slice(7, 20))
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, trivial_augment(images, torch.Generator().manual_seed(4), 20, slice(0, 20)))
    assert whole.dtype == torch.uint8 and whole.shape == images.shape


def test_every_operation_gets_its_turn_and_the_batch_given_is_left_as_it_was() -> None:
    images = batch_of(4).repeat(70, 1, 1, 1)
    before = images.clone()
    changed = trivial_augment(images, torch.Generator().manual_seed(0), len(images), slice(None))
    same = (changed == images).flatten(1).all(1).float().mean().item()
    assert 1 / 28 < same < 1 / 4  # identity, and what is weak enough to change nothing
    assert torch.equal(images, before)
