"""TrivialAugment (Müller and Hutter 2021), its wide set: one operation of fourteen an image, of random strength.

Images with the same operation are computed together, on their device. Operations take uint8 images (N, H, W, 3) and a
strength for each, float (N,). They give Pillow's results up to rounding; pixels from outside an image are black.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

_STRENGTHS = 31  # steps from none to the strongest
_LONGEST_SHIFT, _WIDEST_TURN, _STRONGEST = 32.0, 135.0, 0.99  # pixels, degrees, shear and enhancement
_FEWEST_BITS = 2  # that posterising leaves of eight

Operation = Callable[[Tensor, Tensor], Tensor]


def trivial_augment(images: Tensor, random: torch.Generator, batch_size: int, part: slice) -> Tensor:
    """Return the `part` of a batch, uint8 (n, H, W, 3), with one random operation applied to each image."""
    names = torch.randint(0, len(OPERATIONS), (batch_size,), generator=random)[part]
    steps = torch.randint(0, _STRENGTHS, (batch_size,), generator=random)[part] / (_STRENGTHS - 1)
    signs = 1 - 2 * torch.randint(0, 2, (batch_size,), generator=random)[part]
    changed = images.clone()
    for number, (operate, strength) in enumerate(OPERATIONS.values()):
        chosen = (names == number).nonzero().flatten()
        if len(chosen):
            places = chosen.to(images.device)
            strengths = torch.tensor([strength(step) for step in (steps * signs)[chosen].tolist()])
            changed[places] = operate(images[places], strengths.to(images.device))
    return changed


def identity(images: Tensor, _strengths: Tensor) -> Tensor:
    """Return the images as they are."""
    return images


def shear_x(images: Tensor, shears: Tensor) -> Tensor:
    """Move each row by its distance from the upper edge times the shear, like Pillow's affine transform."""
    return _moved(images, _matrices(shears, lambda shear: (1, shear, 0, 0, 1, 0)))


def shear_y(images: Tensor, shears: Tensor) -> Tensor:
    """Move each column by its distance from the left edge times the shear."""
    return _moved(images, _matrices(shears, lambda shear: (1, 0, 0, shear, 1, 0)))


def translate_x(images: Tensor, shifts: Tensor) -> Tensor:
    """Move images by so many pixels to the left."""
    return _moved(images, _matrices(shifts, lambda shift: (1, 0, shift, 0, 1, 0)))


def translate_y(images: Tensor, shifts: Tensor) -> Tensor:
    """Move images by so many pixels upwards."""
    return _moved(images, _matrices(shifts, lambda shift: (1, 0, 0, 0, 1, shift)))


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn images counter-clockwise about their centres."""
    x, y = images.shape[2] / 2, images.shape[1] / 2

    def about_the_centre(angle: float) -> tuple[float, ...]:
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        return cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y

    return _moved(images, _matrices(degrees, about_the_centre))


def brightness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with black: 0 is black, 1 the image."""
    return _blended(torch.zeros_like(images), images, factors)


def colour(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the image in grey: 0 is grey, 1 the image."""
    return _blended(_grey(images).expand_as(images), images, factors)


def contrast(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the image's mean grey: 0 is grey all over, 1 the image."""
    means = (_grey(images).float().mean((1, 2, 3), keepdim=True) + 0.5).floor()
    return _blended(means.expand_as(images), images, factors)


def sharpness(images: Tensor, factors: Tensor) -> Tensor:
    """Blend with the smoothed image: 0 is smooth, 1 the image. The outermost pixels stay."""
    whole = images.int()
    smooth = whole.clone()
    if min(images.shape[1:3]) > 2:
        height, width = images.shape[1:3]
        around = [
            whole[:, row : row + height - 2, column : column + width - 2] for row in range(3) for column in range(3)
        ]
        total = 4 * around[4]
        for neighbour in around:
            total = total + neighbour
        smooth[:, 1:-1, 1:-1] = (2 * total + 13) // 26  # of weights 1, and 5 in the middle: 13
    return _blended(smooth, images, factors)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keep so many of the eight bits of each value."""
    masks = (256 - 2 ** (8 - bits.long())).to(torch.uint8)
    return images & masks.view(-1, 1, 1, 1)


def solarize(images: Tensor, thresholds: Tensor) -> Tensor:
    """Turn values from the threshold on into their negative."""
    return torch.where(images.float() >= thresholds.view(-1, 1, 1, 1), 255 - images, images)


def auto_contrast(images: Tensor, _strengths: Tensor) -> Tensor:
    """Stretch each channel from its darkest and brightest value to 0 and 255."""
    low = images.amin((1, 2), keepdim=True).double()
    high = images.amax((1, 2), keepdim=True).double()
    scale = 255 / (high - low).clamp(min=1)
    stretched = (images * scale - low * scale).clamp(0, 255).to(torch.uint8)
    return torch.where(high > low, stretched, images)


def equalize(images: Tensor, _strengths: Tensor) -> Tensor:
    """Spread each channel's values so that all are about equally frequent."""
    count, height, width, channels = images.shape
    rows = torch.arange(count * channels, device=images.device).view(count, 1, 1, channels)
    codes = (images.long() + 256 * rows).flatten()
    counts = torch.bincount(codes, minlength=count * channels * 256).view(-1, 256)
    brightest = 255 - (counts > 0).flip(1).int().argmax(1, keepdim=True)
    steps = (height * width - counts.gather(1, brightest)) // 255
    before = counts.cumsum(1) - counts
    table = torch.where(steps > 0, (steps // 2 + before) // steps.clamp(min=1), torch.arange(256, device=images.device))
    return table.clamp(max=255).flatten()[codes].view_as(images).to(torch.uint8)


def _grey(images: Tensor) -> Tensor:
    """Return the luma of ITU-R 601, int (n, H, W, 1), rounded as Pillow rounds it."""
    red, green, blue = images.int().unbind(3)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).unsqueeze(3)


def _blended(first: Tensor, second: Tensor, factors: Tensor) -> Tensor:
    start = first.float()
    mixed = start + factors.view(-1, 1, 1, 1) * (second.float() - start)
    return mixed.clamp(0, 255).to(torch.uint8)  # towards zero, like Pillow


def _matrices(strengths: Tensor, matrix: Callable[[float], tuple[float, ...]]) -> Tensor:
    rows = [matrix(strength) for strength in strengths.tolist()]
    return torch.tensor(rows, dtype=torch.float64, device=strengths.device).view(-1, 2, 3)


def _moved(images: Tensor, matrices: Tensor) -> Tensor:
    """Return images whose pixel at (x, y) is that of the image at matrix · (x, y, 1), or black outside."""
    _, height, width, _ = images.shape
    device = images.device
    x = torch.arange(width, device=device, dtype=torch.float64) + 0.5
    y = torch.arange(height, device=device, dtype=torch.float64) + 0.5
    a, b, c, d, e, f = (value.view(-1, 1, 1) for value in matrices.flatten(1).unbind(1))
    column = (a * x[None, None, :] + b * y[None, :, None] + c).floor().long()
    row = (d * x[None, None, :] + e * y[None, :, None] + f).floor().long()
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    image = torch.arange(len(images), device=device).view(-1, 1, 1)
    return images[image, row.clamp(0, height - 1), column.clamp(0, width - 1)] * inside.unsqueeze(3)


# Name → what it does, and how strongly: a function of a number in -1…1, of which some use only the magnitude.
OPERATIONS: dict[str, tuple[Operation, Callable[[float], float]]] = {
    "identity": (identity, abs),
    "shear_x": (shear_x, lambda step: _STRONGEST * step),
    "shear_y": (shear_y, lambda step: _STRONGEST * step),
    "translate_x": (translate_x, lambda step: _LONGEST_SHIFT * step),
    "translate_y": (translate_y, lambda step: _LONGEST_SHIFT * step),
    "rotate": (rotate, lambda step: _WIDEST_TURN * step),
    "brightness": (brightness, lambda step: 1 + _STRONGEST * step),
    "colour": (colour, lambda step: 1 + _STRONGEST * step),
    "contrast": (contrast, lambda step: 1 + _STRONGEST * step),
    "sharpness": (sharpness, lambda step: 1 + _STRONGEST * step),
    "posterize": (posterize, lambda step: 8 - round((8 - _FEWEST_BITS) * abs(step))),
    "solarize": (solarize, lambda step: round(255 * (1 - abs(step)))),
    "auto_contrast": (auto_contrast, abs),
    "equalize": (equalize, abs),
}
