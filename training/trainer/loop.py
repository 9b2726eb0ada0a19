"""The training loop: everything that changes the weights is on this page."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from training.augmentation.batch_transforms import batch_indices
from training.augmentation.mixing import Batch, balanced_weights, mixed
from training.data.training_set import TrainingImages
from training.hardware.devices import Hardware
from training.hardware.process_group import World
from training.hardware.transfer import moved
from training.networks.resnet import ResNet
from training.recipes.recipe import Recipe, steps_per_epoch
from training.trainer.fine_tuning import parameter_groups
from training.trainer.gradients import ParallelGradients
from training.trainer.interrupts import Stop

CAUTIOUS_STEPS = 100  # whose mean error ends the cautious start
_FIRST_LOSS_SCALE = 2.0**12  # doubled every 2,000 steps, halved where gradients overflow


class Diverged(Exception):
    """The loss or a weight is not finite any more. The message is one line that names the next step."""


@dataclass(slots=True)
class Training:
    """A network in training: its weights, momentum, moving average, and step."""

    recipe: Recipe
    seed: int
    total_steps: int
    hardware: Hardware
    model: ResNet
    images: TrainingImages
    world: World
    stop: Stop = field(default_factory=Stop)
    step: int = 0  # weight updates so far; data order and augmentation depend only on it and the seed
    replicas: ParallelGradients = field(init=False)
    optimizer: torch.optim.SGD = field(init=False)
    class_weights: Tensor | None = field(init=False)  # (classes,), weight of each class in the loss
    scaler: torch.amp.GradScaler = field(init=False)  # has an effect in float16 only
    average: list[Tensor] | None = field(init=False)  # of every floating tensor of the state dict
    sums: Tensor = field(init=False)  # this epoch's loss and error in percent, summed over steps, and the steps; (3,)
    is_cautious: bool = field(init=False)  # still at the recipe's cautious rate
    cautious_errors: list[float] = field(init=False)  # percent, of the last steps at that rate

    def __post_init__(self) -> None:
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.replicas = ParallelGradients(self.model, self.hardware, self.world, self.stop, parts=self.norm_groups)
        is_balanced = self.recipe.class_weights == "balanced"
        self.class_weights = balanced_weights(self.images.labels, self.model.num_classes) if is_balanced else None
        self.start_afresh()

    def start_afresh(self) -> None:
        """Go to step 0 with the present weights."""
        self.replicas.share_statistics()
        self.optimizer = torch.optim.SGD(
            parameter_groups(self.model, self.recipe),
            lr=self.recipe.learning_rate,
            momentum=self.recipe.momentum,
            nesterov=self.recipe.nesterov,
            fused=True,
        )
        is_float16 = self.hardware.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.hardware.device, init_scale=_FIRST_LOSS_SCALE, enabled=is_float16)
        self.scaler.scale(torch.zeros((), device=self.hardware.device))  # the first use creates its tensors
        self.average = None if self.recipe.ema_decay is None else [tensor.clone() for tensor in self._averaged()]
        self.sums = torch.zeros(3, device=self.images.labels.device)
        self.is_cautious, self.cautious_errors = self.recipe.cautious_rate is not None, []
        self.step = 0

    @property
    def batch_size(self) -> int:
        """Images in a step: the recipe's, or the whole training set if that is smaller."""
        return min(self.recipe.batch_size, len(self.images))

    @property
    def norm_groups(self) -> int:
        """Batch-norm groups in each of this process's micro-batches."""
        return self.recipe.norm_groups(self.batch_size // (self.world.size * self.recipe.micro_batches))

    @property
    def epoch_steps(self) -> int:
        return steps_per_epoch(len(self.images), self.recipe.batch_size)

    @property
    def epoch(self) -> int:
        return self.step // self.epoch_steps

    def is_epoch_complete(self) -> bool:
        """Whether an epoch (or the run) has ended and its `means` are still to be logged."""
        return (self.step % self.epoch_steps == 0 or self.step == self.total_steps) and bool(self.sums[2] > 0)

    def train(self, steps: int, batch: Batch | None = None) -> None:
        """Update the weights `steps` times, each with the next batch, or with `batch` if one is given.

        Raises Diverged when the loss stops being finite. Raises Stopped if the process has to end and a step takes too
        long; the step has then no effect.
        """
        for _ in range(steps):
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate() * group.get("rate_share", 1.0)  # older checkpoints have none
            losses_and_errors = self.replicas.compute_gradients(
                batch or self.next_batch(),
                whole=self.batch_size,
                micro_batches=self.recipe.micro_batches,
                label_smoothing=self.recipe.label_smoothing,
                scale=self.scaler.scale if self.scaler.is_enabled() else None,
            )
            self.scaler.unscale_(self.optimizer)
            if self.recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
            self.scaler.step(self.optimizer)  # skipped if a gradient has overflowed
            self.scaler.update()
            self.step += 1
            self._update_average()
            self.sums += losses_and_errors  # does not wait for a GPU
            if self.is_cautious:
                self._note_cautious_step(float(losses_and_errors[1]))
        if not torch.isfinite(self.sums[0]):  # here the CPU waits for the GPU
            self._raise_diverged("the loss is")

    def _note_cautious_step(self, error: float) -> None:
        """End the cautious start by the mean error of the last steps; a single batch may have a low one by chance."""
        self.cautious_errors = [*self.cautious_errors, error][-CAUTIOUS_STEPS:]
        mean = sum(self.cautious_errors) / len(self.cautious_errors)
        is_measured = len(self.cautious_errors) == CAUTIOUS_STEPS
        self.is_cautious = not is_measured or mean >= self.recipe.cautious_until_error

    def _raise_diverged(self, what: str) -> NoReturn:
        raise Diverged(
            f"{what} no longer finite at step {self.step}; checkpoints are intact; "
            f"lower the learning rate (it was {self.optimizer.param_groups[-1]['lr']:.3g})"
        )

    def learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        if self.is_cautious and self.recipe.cautious_rate is not None:
            return self.recipe.cautious_rate
        return self.recipe.learning_rate_at(self.step, self.total_steps)

    def means(self) -> tuple[float, float]:
        """Return the mean loss, and the error in percent, over this epoch's augmented batches so far."""
        loss, error, steps = self.sums.tolist()
        return loss / max(steps, 1), error / max(steps, 1)

    def next_batch(self) -> Batch:
        """Return this process's part of the next batch."""
        images, labels = self._images_of(self.step)
        return replace(mixed(images, labels, self.recipe, self.seed, self.step), class_weights=self.class_weights)

    def unmixed_parts(self, images: int) -> Iterator[Tensor]:
        """Yield this process's share of about `count` augmented images, (N, 3, H, W), in parts as in a step."""
        for step in range(self.step, self.step + max(1, images // self.batch_size)):
            augmented, _ = self._images_of(step)
            parts = self.norm_groups * self.recipe.micro_batches
            yield from augmented.tensor_split(parts if len(augmented) >= 2 * parts else 1)

    def _images_of(self, step: int) -> tuple[Tensor, Tensor]:
        indices = batch_indices(self.seed, step, len(self.images), self.batch_size)
        part = self.world.part(len(indices))
        side = self.recipe.side_at(step, self.total_steps)
        images = self.images.batch(indices, self.seed, step // self.epoch_steps, step, part, side)
        return images, self.images.labels[moved(indices[part], self.images.labels.device)]

    def _averaged(self) -> list[Tensor]:
        """Return the averaged tensors, weights and batch-norm statistics, as live tensors."""
        return [tensor.detach() for tensor in self.model.state_dict().values() if tensor.is_floating_point()]

    def _update_average(self) -> None:
        if self.average is None or self.recipe.ema_decay is None or self.step % self.recipe.ema_every:
            return
        updates = self.step // self.recipe.ema_every
        decay = min(self.recipe.ema_decay, (1 + updates) / (10 + updates))  # the average leaves the random weights soon
        torch._foreach_lerp_(self.average, self._averaged(), 1 - decay)

    def weights_to_keep(self) -> dict[str, Tensor]:
        """Return the state dict to evaluate and serve: the moving average if the recipe has one."""
        weights = dict(self.model.state_dict())
        if self.average is not None:
            names = [name for name, tensor in weights.items() if tensor.is_floating_point()]
            weights.update(zip(names, self.average, strict=True))
        return {name: tensor.detach().clone() for name, tensor in weights.items()}

    def state(self) -> dict[str, Any]:
        """Return the state for resuming, without the step: raw weights, momentum, average.

        Raises Diverged for weights that are not finite, which the loss shows only a step later.
        """
        if not all(torch.isfinite(tensor).all() for tensor in self.model.state_dict().values()):
            self._raise_diverged("the weights are")
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "scaler": self.scaler.state_dict(),
            "sums": self.sums,
            "is_cautious": self.is_cautious,
            "cautious_errors": self.cautious_errors,
        }

    def restore(self, step: int, state: dict[str, Any]) -> None:
        """Return to a state of `state` at that step."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            for tensor, saved in zip(self.average, state["average"], strict=True):
                tensor.copy_(saved)
        self.scaler.load_state_dict(state.get("scaler", {}))
        self.sums.copy_(state["sums"])
        self.is_cautious = state.get("is_cautious", False)
        self.cautious_errors = state.get("cautious_errors", [])
        self.replicas.share_statistics()
        self.step = step
