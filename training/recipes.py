"""One frozen `Recipe` for each experiment: data, not code, with the error to expect beside it.

A recipe says everything that shapes the weights; where and how fast it runs (device, precision, threads) is recorded
by the run. Lengths are in weight updates, moments within a run in fractions of it, so that a recipe can be made
shorter without losing its shape.
"""

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

CIFAR_DEPTHS = (20, 32, 44, 56, 110)
_FIRST_CAUTIOUS_DEPTH = 110


_AtLeastOne = Annotated[int, Field(ge=1)]  # held only where somebody changes a recipe, by `changed`


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything about a training that shapes its weights, but the data and the seed."""

    name: str
    network: str
    shortcut: str | None = None  # None: what the paper uses for this network
    stride_in: str | None = None

    image_size: _AtLeastOne = 32  # pixels a side, after the augmentation
    crop_padding: Annotated[int, Field(ge=0)] = 4  # pixels of padding on each side, of which a random window is cut
    flip: Literal["random", "alternating", "none"] = "random"
    subtract: Literal["channel_mean", "pixel_mean"] = "channel_mean"

    epochs: Annotated[float, Field(gt=0)] | None = None  # one of epochs and steps
    steps: _AtLeastOne | None = None
    batch_size: _AtLeastOne = 128
    held_out_images: Annotated[int, Field(ge=0)] = 0  # of the training set, kept for choices and calibration

    schedule: Literal["cosine", "steps"] = "cosine"
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    warmup: float = 0.0  # fraction of the run in which the rate climbs from 0
    cautious_rate: float | None = None  # the learning rate until the training error falls below `cautious_until_error`
    cautious_until_error: float = 80.0  # percent
    milestones: tuple[float, ...] = ()  # fractions of the run at which a stepped rate is divided by ten
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay_norms_and_biases: bool = True

    label_smoothing: float = 0.0
    mixup: float = 0.0  # alpha of its Beta distribution; 0: none
    cutmix: float = 0.0
    micro_batches: _AtLeastOne = 1  # parts of a batch that are computed one after the other, where memory is short
    clip_norm: float | None = None  # the largest norm of all gradients together

    ema_decay: float | None = None  # None: no moving average
    ema_every: _AtLeastOne = 20  # steps

    expected_error: float | None = None  # percent of CIFAR-10's test set
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

    def total_steps(self, images: int) -> int:
        """Return the number of weight updates of a run over a training set of `images` pictures."""
        if self.steps is not None:
            return self.steps
        if self.epochs is None:
            raise ValueError(f"recipe {self.name} names neither steps nor epochs")
        return max(1, round(self.epochs * steps_per_epoch(images, self.batch_size)))


def steps_per_epoch(images: int, batch_size: int) -> int:
    """Return how many whole batches an epoch has; a training set smaller than a batch is one batch."""
    return max(1, images // batch_size)


# Table 6 of the paper; for 110 layers the best of five runs.
_PAPER_ERRORS = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43, 1202: 7.93}


def _paper_cifar(network: str, depth: int) -> Recipe:
    """Section 4.2: SGD with momentum, 64k steps of 128, the rate divided by ten at 32k and 48k, everything decayed.

    The deepest nets begin with a rate of 0.01, until they have begun to learn.
    """
    return Recipe(
        name=f"paper-{network}",
        network=network,
        subtract="pixel_mean",
        steps=64_000,
        schedule="steps",
        learning_rate=0.1,
        milestones=(0.5, 0.75),
        cautious_rate=0.01 if depth >= _FIRST_CAUTIOUS_DEPTH and network.startswith("resnet") else None,
        weight_decay=1e-4,
        expected_error=_PAPER_ERRORS[depth] if network.startswith("resnet") else None,
        source="He et al. 2015, section 4.2 and table 6",
    )


def _modern_cifar(depth: int, expected_error: float | None) -> Recipe:
    """What has been learnt since: Nesterov, cosine, stronger decay but not of norms and biases, weight averaging."""
    return Recipe(
        name=f"modern-resnet{depth}",
        network=f"resnet{depth}",
        flip="alternating",
        epochs=70,
        held_out_images=2_000,
        schedule="cosine",
        learning_rate=0.2,
        warmup=0.05,
        nesterov=True,
        weight_decay=5e-4,
        decay_norms_and_biases=False,
        ema_decay=0.995,
        expected_error=expected_error,
        source="this project",
    )


_ALL = (
    *(_paper_cifar(f"{family}{depth}", depth) for family in ("resnet", "plain") for depth in CIFAR_DEPTHS),
    _paper_cifar("resnet1202", 1202),
    *(_modern_cifar(depth, 8.0 if depth == 20 else None) for depth in CIFAR_DEPTHS),
)
RECIPES = {recipe.name: recipe for recipe in _ALL}


def changed(recipe: Recipe, assignments: Iterable[str]) -> Recipe:
    """Return a recipe with fields changed by `name=value`, the value as in JSON or as plain text.

    Raises ValueError that names the field for one that does not exist or a value that does not fit it.
    """
    fields: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or name == "name" or name not in Recipe.__dataclass_fields__:
            raise ValueError(f"--set {assignment}: write field=value with one of {', '.join(_CHANGEABLE)}")
        try:
            fields[name] = json.loads(text)
        except ValueError:
            fields[name] = text
        if name in _LENGTHS and fields[name] is not None:
            fields |= {other: None for other in _LENGTHS if other != name}
    if {name for name in _LENGTHS if fields.get(name, getattr(recipe, name)) is None} == set(_LENGTHS):
        raise ValueError("--set leaves the recipe without a length; give it epochs or steps")
    try:
        return TypeAdapter(Recipe).validate_python(dataclasses.asdict(recipe) | fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise ValueError(f"--set {first['loc'][0]}={first['input']}: {first['msg']}") from None


_LENGTHS = ("epochs", "steps")
_CHANGEABLE = tuple(field for field in Recipe.__dataclass_fields__ if field != "name")
