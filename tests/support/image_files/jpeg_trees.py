"""Trees of JPEG files of mixed sizes, in three classes that can be told apart by their colour."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}


def write_jpegs(folder: Path, each: int, *, seed: int = 0, longest: int = 90) -> Path:
    """Write `each` images a class, of 40 to `longest` pixels a side."""
    random = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(each):
            height, width = random.integers(40, longest, 2)
            noise = random.normal(colour, 40, (height // 4, width // 4, 3)).clip(0, 255).astype(np.uint8)
            image = Image.fromarray(noise).resize((int(width), int(height)), Image.Resampling.BICUBIC)
            image.save(folder / name / f"{index:03}.jpg", quality=90)
    return folder
