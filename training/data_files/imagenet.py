"""ImageNet's archives of 2012: a tar of one tar for each class, and a tar of validation images without labels."""

import re
from pathlib import Path, PurePosixPath

from training.data_files.listing import DataError, Listing, Place, of_places
from training.data_files.tars import members_of, place_in_one_piece

_CLASS_TAR = re.compile(r"n\d{8}\.tar")
_VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_\d{8}\.JPEG")


def tars_of_classes(listing: Listing) -> Listing | None:
    """Return the images of one tar for each class, by the classes' WordNet ids; None for other data.

    The tars may be in a tar, as in ILSVRC2012_img_train.tar, or in a folder.
    """
    tars = [path for path in listing.files if _CLASS_TAR.fullmatch(path.name)]
    if not tars or len(tars) < len(listing.files):
        return None
    found: dict[PurePosixPath, Place] = {}
    for tar in tars:
        members = members_of(place_in_one_piece(listing, tar))
        found |= {tar.parent / tar.stem / path.name: place for path, place in members.items()}
    return of_places(found)


def refuse_unlabelled(listing: Listing, source: Path) -> None:
    """Raise DataError, which says what to do, for the validation images of 2012, whose archive has no labels."""
    if listing.files and all(len(path.parts) == 1 and _VALIDATION_IMAGE.fullmatch(path.name) for path in listing.files):
        raise DataError(
            f"{source} has ImageNet's validation images without labels, which are in ILSVRC2012_devkit_t12.tar.gz; "
            "put both into one folder, pip install torchvision scipy, and sort them into class folders there: "
            "python -c \"import torchvision; torchvision.datasets.ImageNet('.', 'val')\""
        )
