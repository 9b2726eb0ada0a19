"""The views of an image that a network evaluates: its centre, or several views whose scores are averaged.

centre       what training and serving see: the shorter side resized, the centre cut out
mirror       that and its mirror image
ten-crop     the four corners and the centre, and their mirror images (section 3.4 of the paper: 224 of 256 pixels)
multi-scale  the whole image at five sizes through the network as a fully-convolutional one (section 3.4: shorter
             sides of 224 to 640 pixels): features are pooled over all places, however large their map is

The paper's sizes are for networks of 224 pixels; for those of other sizes they change in proportion.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Size = tuple[int, int]  # height, width
# Returns the image, uint8 (height, width, 3), resized to a shorter side: its centre of a size, or all of it.
Resize = Callable[[int, Size | None], Pixels]

NAMES = ("centre", "mirror", "ten-crop", "multi-scale")
_PAPER_CROP, _PAPER_TEN_CROP_SIDE, _PAPER_SIDES = 224, 256, (224, 256, 384, 480, 640)


@dataclass(frozen=True, slots=True)
class Views:
    """The views of each image that are evaluated."""

    name: str
    shorter_sides: tuple[int, ...]
    crop: Size | None  # None: the whole image
    scaled: bool = False  # the paper's sizes in proportion to the network's

    @property
    def count(self) -> int:
        """Number of views of an image."""
        return {"centre": 1, "mirror": 2, "ten-crop": 10}.get(self.name, len(self.shorter_sides))

    def of(self, resize: Resize) -> list[Pixels]:
        """Return the views of one image, uint8 (height, width, 3)."""
        if self.name == "ten-crop" and self.crop is not None:
            return _ten_crops(resize(self.shorter_sides[0], None), self.crop)
        views = [resize(side, self.crop) for side in self.shorter_sides]
        return [*views, views[0][:, ::-1]] if self.name == "mirror" else views

    def __str__(self) -> str:
        sides = ", ".join(map(str, self.shorter_sides))
        what = "whole images" if self.crop is None else f"{self.crop[0]} x {self.crop[1]} pixels"
        scaled = ", the paper's sizes in proportion" if self.scaled else ""
        return f"{self.name}: {what} of a shorter side of {sides}{scaled}"


def choose(name: str, shorter_side: int, crop: Size) -> Views:
    """Return the named views for a network with inputs of `crop` from a shorter side of `shorter_side` pixels.

    Raises ValueError for an unknown name.
    """
    if name not in NAMES:
        raise ValueError(f"no views are called {name!r}; there are {', '.join(NAMES)}")
    if name in ("centre", "mirror"):
        return Views(name, (shorter_side,), crop)
    scaled = min(crop) != _PAPER_CROP
    if name == "ten-crop":
        return Views(name, (max(_in_proportion(_PAPER_TEN_CROP_SIDE, crop), *crop),), crop, scaled)
    return Views(name, tuple(_in_proportion(side, crop) for side in _PAPER_SIDES), None, scaled)


def _in_proportion(side: int, crop: Size) -> int:
    return round(side * min(crop) / _PAPER_CROP)


def _ten_crops(pixels: Pixels, crop: Size) -> list[Pixels]:
    height, width = crop
    down, right = pixels.shape[0] - height, pixels.shape[1] - width
    corners = ((0, 0), (0, right), (down, 0), (down, right), (round(down / 2), round(right / 2)))
    crops = [pixels[top : top + height, left : left + width] for top, left in corners]
    return [*crops, *(view[:, ::-1] for view in crops)]
