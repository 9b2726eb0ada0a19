"""Class activation maps as pictures: where a network saw what speaks for a label.

A map (Zhou et al. 2016) is a coarse grid; the mean of its places, and the class's bias, is the class's logit. Negative
values, which speak against the class, have no heat; the strongest value has all of it.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.preprocess import Pixels

_SHORTEST_SIDE = 256  # pixels; what a network of 32 pixels saw is enlarged to be looked at
_OPACITY = 0.6  # of the hottest place
# Heat → red, green, blue: dark blue over red to yellow, told apart by brightness alone, too.
_HEATS = (0.0, 0.5, 1.0)
_COLOURS = ((40, 10, 120), (220, 50, 60), (255, 230, 60))


def map_as_png(values: NDArray[np.float32], crop: tuple[int, int]) -> bytes:
    """Return a map (h, w) as a PNG to lay over what the network saw, `crop` (height, width): heat as opacity."""
    file = io.BytesIO()
    _coloured(values, _display_size(*crop)).save(file, "PNG")
    return file.getvalue()


def overlay_as_png(pixels: Pixels, values: NDArray[np.float32]) -> bytes:
    """Return what the network saw, uint8 (H, W, 3), with a map (h, w) laid over it, as a PNG."""
    size = _display_size(*pixels.shape[:2])
    picture = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC).convert("RGBA")
    picture.alpha_composite(_coloured(values, size))
    file = io.BytesIO()
    picture.convert("RGB").save(file, "PNG")
    return file.getvalue()


def _display_size(height: int, width: int) -> tuple[int, int]:
    """Return width and height in whole multiples of the crop's, not below the shortest side."""
    times = max(1, -(-_SHORTEST_SIDE // min(height, width)))
    return width * times, height * times


def _coloured(values: NDArray[np.float32], size: tuple[int, int]) -> Image.Image:
    heat = _heat(values, size)
    channels = [np.interp(heat, _HEATS, levels) for levels in zip(*_COLOURS, strict=True)]
    return Image.fromarray(np.stack([*channels, 255 * _OPACITY * heat], axis=2).round().astype(np.uint8))


def _heat(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the map at a size (width, height), from 0 to 1."""
    smooth = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))
    positive: NDArray[np.float32] = smooth.clip(0)
    positive /= max(float(positive.max()), 1e-30)
    return positive
