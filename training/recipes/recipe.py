"""A recipe: all settings that shape the weights of a training, as data, with the expected error beside them.

Where and how fast a training runs (device, precision, threads) is recorded by the run. Lengths are in weight updates,
moments within a run in fractions of it, so that a recipe can be made shorter without losing its shape.
"""

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from training.networks.suggestion import did_you_mean

# Limits are checked where a user changes a recipe, by `changed`.
_AtLeastOne = Annotated[int, Field(ge=1)]
_LARGEST = 1e30  # within what float32 can hold
_Positive = Annotated[float, Field(gt=0, le=_LARGEST)]
_NotNegative = Annotated[float, Field(ge=0, le=_LARGEST)]
_Share = Annotated[float, Field(ge=0, le=1)]
_PositiveShare = Annotated[float, Field(gt=0, le=1)]
_LessThanOne = Annotated[float, Field(ge=0, lt=1)]

# Fields that describe a recipe and change nothing.
DESCRIPTIVE = ("name", "expected_error", "expected_on", "source")


@with_config(ConfigDict(allow_inf_nan=False))
@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything about a training that shapes its weights, but the data and the seed."""

    name: str
    network: str
    shortcut: str | None = None  # None: what the paper uses for this network
    stride_in: str | None = None
    stem: str | None = None
    zero_init_residual: bool = False  # each residual block begins as the identity (Goyal et al. 2017)

    image_size: _AtLeastOne = 32  # pixels a side in training, after the augmentation
    progressive_sizes: tuple[tuple[_Share, _AtLeastOne], ...] = ()  # from this fraction of the run on: pixels a side
    test_size: _AtLeastOne | None = None  # pixels a side in testing and serving; None: image_size
    test_shorter_side: _AtLeastOne | None = None  # pixels to which the shorter side is resized then; None: test_size
    crop: Literal["pad", "scale_jitter", "random_resized"] = "pad"
    crop_padding: Annotated[int, Field(ge=0)] = 4  # pad: pixels on each side, of which a random window is cut
    scale_range: tuple[_AtLeastOne, _AtLeastOne] = (256, 480)  # scale_jitter: pixels of the shorter side
    crop_area: tuple[_PositiveShare, _PositiveShare] = (0.08, 1.0)  # random_resized: share of the image's area
    crop_ratio: tuple[_Positive, _Positive] = (3 / 4, 4 / 3)  # random_resized: width to height
    flip: Literal["random", "alternating", "none"] = "random"
    pca_colour: _NotNegative = 0.0  # standard deviation of Krizhevsky's colour shifts; 0: none
    trivial_augment: bool = False  # Müller and Hutter 2021, the wide set of operations
    random_erasing: _Share = 0.0  # probability with which a rectangle of an image is erased
    subtract: Literal["channel_mean", "pixel_mean"] = "channel_mean"

    epochs: _Positive | None = None  # one of epochs and steps
    steps: _AtLeastOne | None = None
    batch_size: _AtLeastOne = 128
    # 64: the paper's batch of 128 on two GPUs. Groups by core had 57% test error on 2 threads and 79% on 64.
    norm_batch: _AtLeastOne | None = 64  # images over which batch norm takes its statistics; None: all of a process's
    held_out_images: Annotated[int, Field(ge=0)] = 0  # of the training set, kept for choices and calibration
    held_out_share: _Share = 0.0  # of each class, instead of a number; at least one image on both sides
    max_skipped: _Share = 0.2  # of the files, that may be skipped because they cannot be decoded

    schedule: Literal["cosine", "steps"] = "cosine"
    learning_rate: _Positive = 0.1
    warmup: _Share = 0.0  # fraction of the run in which the rate climbs from 0
    # The learning rate until the mean training error of 100 steps falls below `cautious_until_error`.
    cautious_rate: _Positive | None = None
    cautious_until_error: _NotNegative = 80.0  # percent
    milestones: tuple[_Share, ...] = ()  # fractions of the run at which a stepped rate is divided by ten
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0  # factor on the rate for each block below the classifier
    momentum: _LessThanOne = 0.9
    nesterov: bool = False
    weight_decay: _NotNegative = 1e-4
    decay_norms_and_biases: bool = True

    weights: str | None = None  # where training starts: a file or a run, or `published`; None: at chance
    freeze: Literal["stem", "layer1", "layer2", "layer3", "layer4", "body"] | None = None  # up to here nothing learns
    class_weights: Literal["balanced"] | None = None  # balanced: rare classes count more in the loss

    label_smoothing: _LessThanOne = 0.0
    mixup: _NotNegative = 0.0  # alpha of its Beta distribution; 0: none
    cutmix: _NotNegative = 0.0
    micro_batches: _AtLeastOne = 1  # parts of a batch that are computed one after the other, where memory is short
    clip_norm: _Positive | None = None  # the largest norm of all gradients together
    sync_bn: bool = False  # batch-norm statistics over all GPUs instead of each one's

    ema_decay: _LessThanOne | None = None  # None: no moving average
    ema_every: _AtLeastOne = 20  # steps
    precise_bn_images: Annotated[int, Field(ge=0)] = 0  # training images over which statistics are averaged at the end
    choose_best: Literal["error", "loss", "balanced_error"] | None = None  # of held-out images; None: the last weights
    early_stopping_patience: _AtLeastOne | None = None  # epochs without a better one before the run ends

    expected_error: float | None = None  # percent, top-1, at full length; of which images and views says the next field
    expected_on: str = "CIFAR-10, one view"  # the test set, and what was scored of an image: one view, 1-crop, 10-crop
    source: str = ""

    def learning_rate_at(self, step: int, total_steps: int) -> float:
        """Return the learning rate of one weight update, a pure function of where the run is."""
        progress = step / total_steps
        rate = self.learning_rate
        if self.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * progress))
        else:
            rate *= 0.1 ** sum(progress >= milestone for milestone in self.milestones)
        if progress < self.warmup:
            rate *= progress / self.warmup
        return rate

    def side_at(self, step: int, total_steps: int) -> int:
        """Return the side in pixels of the images of one weight update, a pure function of where the run is."""
        reached = [side for start, side in self.progressive_sizes if step / total_steps >= start]
        return reached[-1] if reached else self.image_size

    def norm_groups(self, images: int) -> int:
        """Return into how many batch-norm groups so many images are split; none is smaller than `norm_batch`."""
        if self.norm_batch is None or self.sync_bn:
            return 1
        return max(1, images // self.norm_batch)

    def total_steps(self, images: int) -> int:
        """Return the number of weight updates of a run over a training set of `images` images."""
        if self.steps is not None:
            return self.steps
        if self.epochs is None:
            raise ValueError(f"recipe {self.name} names neither steps nor epochs")
        return max(1, round(self.epochs * steps_per_epoch(images, self.batch_size)))


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return how many whole batches an epoch has; a training set smaller than a batch is one batch."""
    return max(1, images // batch_size)


def changed(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """Return a recipe with fields changed by `name=value`, the value as in JSON or as plain text.

    Raises ValueError that names the field for one that does not exist or a value that does not fit it.
    """
    fields: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or name == "name" or name not in Recipe.__dataclass_fields__:
            close = did_you_mean(name, _CHANGEABLE) if name not in Recipe.__dataclass_fields__ else None
            advice = close or f"write field=value with one of {', '.join(_CHANGEABLE)}"
            raise ValueError(f"--set {assignment}: {advice}")
        try:
            fields[name] = json.loads(text)
        except ValueError:
            fields[name] = text
        if name in _LENGTHS and fields[name] is not None:
            fields |= {other: None for other in _LENGTHS if other != name}
    if {name for name in _LENGTHS if fields.get(name, getattr(recipe, name)) is None} == set(_LENGTHS):
        raise ValueError("--set leaves the recipe without a length; give it epochs or steps")
    try:
        new = TypeAdapter(Recipe).validate_python(dataclasses.asdict(recipe) | fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ValueError(f"--set {first['loc'][0]}={first['input']}: {first['msg']}") from None
    _refuse_disorder(new)
    if new.nesterov and new.momentum == 0:
        raise ValueError("--set momentum=0: Nesterov's way needs momentum; add --set nesterov=false")
    return new


def _refuse_disorder(recipe: Recipe) -> None:
    for name in _RANGES:
        low, high = getattr(recipe, name)
        if low > high:
            raise ValueError(f"--set {name}=[{low:g}, {high:g}]: write the smaller number first")
    if list(recipe.progressive_sizes) != sorted(recipe.progressive_sizes):
        raise ValueError("--set progressive_sizes: write pairs of [fraction of the run, pixels], the earliest first")


_LENGTHS = ("epochs", "steps")
_RANGES = ("scale_range", "crop_area", "crop_ratio")
_CHANGEABLE = tuple(field for field in Recipe.__dataclass_fields__ if field != "name")
