"""ImageNet's classes, for networks that were trained on it: a readable name and a synset id each.

They are in `imagenet_classes.txt`, which states their source and licence.
"""

from pathlib import Path

_TABLE = Path(__file__).parents[1] / "imagenet_classes.txt"


def imagenet_classes() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the 1,000 names (tench, goldfish, …) and their synset ids (n01440764, …), in the networks' order."""
    lines = [line for line in _TABLE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    synsets, names = zip(*(line.split(" ", 1) for line in lines), strict=True)
    return names, synsets
