"""ImageNet's classes, compared with what others have."""

import hashlib
from pathlib import Path

import pytest

from export.sources.imagenet import imagenet_classes

PHOTOS = Path(__file__).parents[4] / "shared" / "data" / "photos"


def test_there_are_a_thousand_classes_and_each_has_its_own_name() -> None:
    names, synsets = imagenet_classes()
    assert len(names) == len(set(names)) == len(synsets) == len(set(synsets)) == 1000
    assert list(synsets) == sorted(synsets)
    assert (names[0], synsets[0], names[-1], synsets[-1]) == ("tench", "n01440764", "toilet tissue", "n15075141")


def test_ids_and_names_are_those_of_timm_and_torchvision() -> None:
    names, synsets = imagenet_classes()
    ids = "".join(f"{synset}\n" for synset in synsets).encode()
    # timm 1.0.31, data/_info/imagenet_synsets.txt
    assert hashlib.sha256(ids).hexdigest() == "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15"
    # torchvision 0.29.1, models/_meta.py, _IMAGENET_CATEGORIES with a line break between two of them
    joined = "\n".join(names).encode()
    assert hashlib.sha256(joined).hexdigest() == "0b0f9fee7c952f257418d62aa701f023a9da13b443a14f5c4291e5724d92967c"


@pytest.mark.shared
@pytest.mark.skipif(not PHOTOS.exists(), reason="needs the photos beside the checkout")
def test_the_photos_are_named_after_classes() -> None:
    names, synsets = imagenet_classes()
    photos = [path.stem.split("_", 1) for path in PHOTOS.glob("*.jpg")]
    assert len(photos) == 40
    for synset, name in photos:
        assert names[synsets.index(synset)] == name.replace("_", " ")
