"""Make the images of one benchmark and the answers they must get: `prepare.py MODEL FOLDER small|photos [PHOTOS]`.

A process of its own, so that the one that measures has neither NumPy nor ONNX Runtime in memory: pages that two
processes share would count half in the server's memory. The expected labels come from plain ONNX Runtime, one image
at a time. Neighbours in the ranking that are closer than rounding could move are not required.
"""

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from benchmarks.preprocess import made_photo
from benchmarks.serving.peers.network import Network

IMAGES = 16
_CLEARLY = 0.98  # of the probability before it: further apart than batch sizes and thread counts can move it
_ORDINARY_PIXELS = range(100_000, 300_000)  # about 500 x 375
_SAMPLES = Path(__file__).parents[3] / "export" / "samples"
_SMALL_SIDE = 32


def photos(folder: Path | None) -> Iterator[bytes]:
    """Yield JPEG photos of about 500 x 375 pixels: those of the folder, or made ones."""
    if folder is None:
        yield from (made_photo(500, 375, seed=number) for number in range(IMAGES))
        return
    for path in sorted(folder.glob("*.jpg")):
        with Image.open(path) as image:
            if image.width * image.height in _ORDINARY_PIXELS:
                yield path.read_bytes()


def small_images(folder: Path | None) -> Iterator[bytes]:
    """Yield JPEGs of 32 x 32 pixels: the photos, or the sample images of the export, made small."""
    for path in sorted((folder or _SAMPLES).iterdir()):
        file = io.BytesIO()
        with Image.open(path) as image:
            small = image.convert("RGB").resize((_SMALL_SIDE, _SMALL_SIDE), Image.Resampling.BOX)
        small.save(file, "JPEG", quality=90)
        yield file.getvalue()


def clear_labels(answer: dict[str, list[dict[str, float]]]) -> list[str]:
    """Return the labels, best first, as far as each is clearly ahead of the next; perhaps none."""
    best = answer["predictions"]
    clear = 0
    while clear + 1 < len(best) and best[clear + 1]["probability"] < _CLEARLY * best[clear]["probability"]:
        clear += 1
    return [str(prediction["label"]) for prediction in best[:clear]]


def main() -> None:
    model, out, kind, *rest = sys.argv[1:]
    os.environ["BENCHMARK_MODEL"] = model
    folder = Path(rest[0]) if rest else None
    network = Network(intra_op_threads=1)
    expected: list[list[str]] = []
    for image in small_images(folder) if kind == "small" else photos(folder):
        labels = clear_labels(network.classify([image])[0])
        if labels and len(expected) < IMAGES:
            (Path(out) / f"{len(expected)}.jpg").write_bytes(image)
            expected.append(labels)
    (Path(out) / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main()
