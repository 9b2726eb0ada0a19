"""The reader of a run: each data set packed or streamed, and the processes that decode for all data sets."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from service.images.preprocessing import Resizer
from service.system.cores import available_cores
from training.data.crops import CropSpec
from training.data.dataset import Dataset, Reading, load, reading_of
from training.data.decoder_pool import Decoders
from training.data.splits import with_classes
from training.data.training_set import Packed, Pixels, Streamed, crop_for_training
from training.data_files.class_folders import first_few
from training.data_files.parts import find_folders, part_to_measure
from training.hardware.process_group import World
from training.recipes.recipe import Recipe
from training.runs.progress import Progress


class Reader:
    """Reads the data sets of one run. Every process of a run has its own reader; all make the same decisions."""

    def __init__(
        self,
        recipe: Recipe,
        world: World,
        progress: Progress,
        max_skipped: float,
        reading: Reading | None,
        decoders: int | None,
        resizer: Resizer,
    ) -> None:
        """Without `reading` the size of each data set decides; `decoders` are processes, by default one a core.

        Raises ValueError for a test size that is larger than the side it is cut out of.
        """
        self._recipe, self._world, self._progress = recipe, world, progress
        self._max_skipped, self._reading = max_skipped, reading
        self.tested = crop_for_testing(recipe, resizer)
        cores = available_cores()
        self.decoders = Decoders(decoders or max(1, cores // world.local_size))

    def parts(
        self, data: Path, test_data: Path | None, earlier: dict[str, Any]
    ) -> tuple[Dataset, Dataset | None, Dataset | None]:
        """Return the training images, the validation images if they have a folder of their own, and the test images.

        All are preprocessed as for testing. `earlier` is run.json of a resumed run, which keeps its way of reading.
        Raises DataError.
        """
        folders = find_folders(data)
        if folders.training != data:
            self._progress.log(f"{data} is split: {folders}")
        for note in folders.notes:
            self._progress.log(note)
        if test_data is not None:
            test_data = part_to_measure(test_data, self._progress.log)

        def part(folder: Path | None, name: str, least_classes: int = 1) -> Dataset | None:
            if folder is None:
                return None
            facts = earlier.get(name)
            reading = reading_of(facts["fingerprint"]) if facts else self._reading
            return self._load(folder, self.tested, reading, least_classes)

        train_set = cast(Dataset, part(folders.training, "dataset", least_classes=2))
        validation_set = part(folders.validation, "validation_dataset")
        test_set = part(test_data or folders.test, "test_dataset")
        return train_set, self._labelled_as(train_set, validation_set), self._labelled_as(train_set, test_set)

    def _labelled_as(self, train_set: Dataset, other: Dataset | None) -> Dataset | None:
        """Return a part with the labels of the training images; log its missing classes. Raises DataError."""
        if other is None:
            return None
        absent = [name for name in train_set.classes if name not in other.classes]
        if absent:
            self._progress.log(f"{other.source} has no images of {first_few(absent)}")
        return with_classes(other, train_set.classes)

    def _load(self, source: Path, crop: CropSpec, reading: Reading | None, least_classes: int = 1) -> Dataset:
        return load(
            source,
            crop,
            max_skipped=self._max_skipped,
            announce=self._progress.log,
            reading=reading,
            decoders=self.decoders,
            processes=self._world.local_size,
            least_classes=least_classes,
            agree=lambda mine: "streamed" if self._world.any(mine == "streamed") else "packed",
        )

    def pixels(self, dataset: Dataset, kept: NDArray[np.int64], device: str, seed: int) -> Pixels:
        """Return the source of the training pixels, for the images at `kept`, int64 (n,). Raises DataError."""
        crop = crop_for_training(self._recipe, self.tested.resizer)
        if crop.kind == "centre" and dataset.reading == "packed":
            packed = dataset
            if crop != self.tested:
                packed = self._load(Path(dataset.source), crop, "packed")
            return Packed(torch.from_numpy(np.array(packed.images[kept])).to(device))
        self._progress.log(f"training images are decoded for each step anew, by {self.decoders.count} processes")
        places = dataset.places()
        return Streamed(
            places=[places[index] for index in kept.tolist()],
            crop=crop,
            decoders=self.decoders,
            device=device,
            seed=seed,
            batch_size=min(self._recipe.batch_size, len(kept)),
        )

    def close(self) -> None:
        """End the decoding processes."""
        self.decoders.close()


def crop_for_testing(recipe: Recipe, resizer: Resizer) -> CropSpec:
    """Return the crop of an image for testing and serving. Raises ValueError if it does not fit."""
    size = recipe.test_size or recipe.image_size
    shorter_side = recipe.test_shorter_side or size
    if shorter_side < size:
        raise ValueError(
            f"test_shorter_side is {shorter_side}, too small for a crop of {size} pixels; "
            "give --set test_shorter_side or --set test_size another value"
        )
    return CropSpec(size, shorter_side=shorter_side, resizer=resizer)
