"""The images of a data set as evaluation uses them, held as pixels or decoded on access."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from training.data.crops import CropSpec
from training.data.decoder_pool import Decoders, gathered
from training.data_files.listing import Place

Some = slice | NDArray[np.int64]


class Images(Protocol):
    """Images by their index: a memory map is one, too."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (N, height, width, 3)."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: Some, /) -> NDArray[np.uint8]:
        """Return some of the images, uint8 (n, height, width, 3)."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """Images that are decoded at each access. Raises DataError for one that no longer can be."""

    places: Sequence[Place]
    crop: CropSpec
    decoders: Decoders

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.places), self.crop.size, self.crop.size, 3)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, which: Some, /) -> NDArray[np.uint8]:
        places = self.places[which] if isinstance(which, slice) else [self.places[index] for index in which.tolist()]
        if not places:
            return np.empty((0, *self.shape[1:]), np.uint8)
        return gathered(self.decoders.submit(places, self.crop), places)


@dataclass(frozen=True, slots=True)
class Chosen:
    """Some images of many, in an order of their own; each is read at its first access."""

    images: Images
    indices: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.indices), *self.images.shape[1:])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, which: Some, /) -> NDArray[np.uint8]:
        return np.asarray(self.images[self.indices[which]])
