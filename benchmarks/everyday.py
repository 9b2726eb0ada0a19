"""The answers of the everyday model to full-size photos, and images of other things for its confidence.

python -m benchmarks.everyday small PHOTOS TRAIN_TAR OUT     64-pixel JPEGs of the classes that it does not know
python -m benchmarks.everyday measure PHOTOS TRAIN_TAR MODEL  accuracy and confidence on the photos themselves

PHOTOS is a folder of photos whose names begin with a synset id (n01440764…), as in the public repository
EliSchwartz/imagenet-sample-images: one photo for each of ImageNet's 1,000 classes. TRAIN_TAR is that of
`train-resnet convert-tiny-imagenet`, whose names say which synset each class is.
"""

import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from service.inference.classifier import Classifier
from service.inference.registry import load
from service.model_files.serving_set import find_models

_SIDE = 64  # pixels
_QUALITY = 75  # of Tiny ImageNet's JPEGs, with chroma at half resolution


def known_classes(train: Path) -> dict[str, str]:
    """Return the label of each synset id that the training images' names have."""
    with tarfile.open(train) as tar:
        paths = [PurePosixPath(member.name) for member in tar if member.isfile()]
    return {path.name.split("_")[0]: path.parent.name for path in paths}


def photos(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the synset id and the path of each photo."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in (".jpeg", ".jpg"):
            yield path.name.split("_")[0], path


def write_small(folder: Path, known: dict[str, str], out: Path) -> int:
    """Write the photos of unknown classes as Tiny ImageNet has its images: 64 x 64 pixels, JPEG. Return how many."""
    out.mkdir(parents=True, exist_ok=True)
    unknown = [path for synset, path in photos(folder) if synset not in known]
    for path in unknown:
        image = Image.open(path).convert("RGB")
        side = min(image.size)
        left, top = ((length - side) // 2 for length in image.size)
        square = image.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        square.save(out / f"{path.stem}.jpg", quality=_QUALITY)
    return len(unknown)


def measure(folder: Path, known: dict[str, str], classifier: Classifier) -> list[str]:
    """Return lines: the accuracy on photos of known classes, and the share of confident answers to each kind."""
    ranks: list[int] = []
    sure: dict[bool, list[bool]] = {True: [], False: []}
    for synset, path in photos(folder):
        answer = classifier.classify_now(path.read_bytes(), top_k=5)
        labels = [best.label for best in answer.predictions]
        sure[synset in known].append(bool(answer.confident))
        if synset in known:
            ranks.append(labels.index(known[synset]) if known[synset] in labels else 5)
    places = np.array(ranks)
    return [
        f"{len(places)} photos of known classes: top-1 {np.mean(places == 0):.1%}, top-5 {np.mean(places < 5):.1%}, "
        f"confident {np.mean(sure[True]):.1%}",
        f"{len(sure[False])} photos of other classes: confident {np.mean(sure[False]):.1%}",
    ]


def main(verb: str, folder: str, train: str, target: str) -> None:
    """Run one of the two verbs."""
    known = known_classes(Path(train))
    if verb == "small":
        sys.stdout.write(f"{write_small(Path(folder), known, Path(target))} images in {target}\n")
        return
    (file,) = [one for one in find_models(Path(target).parents[2]) if one.path == Path(target)]
    classifier = load(file, providers="cpu", max_batch=1)
    if not isinstance(classifier, Classifier):
        raise SystemExit(f"{target} has no model card")
    sys.stdout.write("\n".join([str(target), *measure(Path(folder), known, classifier), ""]))


if __name__ == "__main__":
    main(*sys.argv[1:])
