"""The training loop: everything that happens to the weights is on this page."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from training.augment import batch_indices
from training.batch import Batch, balanced_weights, mixed
from training.distributed import World
from training.finetune import parameter_groups
from training.hardware import Hardware
from training.pictures import Pictures
from training.recipe import Recipe, steps_per_epoch
from training.replicas import Replicas
from training.resnet import ResNet


class Diverged(Exception):
    """The loss is no longer a number. The message is one line that names the next step."""


@dataclass(slots=True)
class Training:
    """A network being trained: its weights, momentum, moving average, and where it is."""

    recipe: Recipe
    seed: int
    total_steps: int
    hardware: Hardware
    model: ResNet
    pictures: Pictures
    world: World
    step: int = 0  # weight updates so far: with the seed, all that data order and augmentation follow from
    replicas: Replicas = field(init=False)
    optimizer: torch.optim.SGD = field(init=False)
    class_weights: Tensor | None = field(init=False)  # (classes,), how much each counts in the loss
    average: list[Tensor] | None = field(init=False)  # of every floating tensor of the state dict
    sums: Tensor = field(init=False)  # this epoch's loss and error in percent, summed over steps, and the steps; (3,)
    is_cautious: bool = field(init=False)  # still at the recipe's cautious rate

    def __post_init__(self) -> None:
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.replicas = Replicas(self.model, self.hardware, self.world)
        is_balanced = self.recipe.class_weights == "balanced"
        self.class_weights = balanced_weights(self.pictures.labels, self.model.num_classes) if is_balanced else None
        self.start_afresh()

    def start_afresh(self) -> None:
        """Go to step 0 with the weights that the model has now."""
        self.replicas.share_statistics()
        self.optimizer = torch.optim.SGD(
            parameter_groups(self.model, self.recipe),
            lr=self.recipe.learning_rate,
            momentum=self.recipe.momentum,
            nesterov=self.recipe.nesterov,
        )
        self.average = None if self.recipe.ema_decay is None else [tensor.clone() for tensor in self._averaged()]
        self.sums = torch.zeros(3, device=self.pictures.labels.device)
        self.is_cautious = self.recipe.cautious_rate is not None
        self.step = 0

    @property
    def batch_size(self) -> int:
        """Pictures in a step: the recipe's, or the whole training set if that is smaller."""
        return min(self.recipe.batch_size, len(self.pictures))

    @property
    def epoch(self) -> int:
        return self.step // steps_per_epoch(len(self.pictures), self.recipe.batch_size)

    def train(self, steps: int) -> None:
        """Update the weights `steps` times. Raises Diverged when the loss stops being finite."""
        self.model.train()
        for _ in range(steps):
            batch = self._next_batch()
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate() * group.get("rate_share", 1.0)  # older checkpoints have none
            losses_and_errors = self.replicas.compute_gradients(
                batch,
                whole=self.batch_size,
                micro_batches=self.recipe.micro_batches,
                label_smoothing=self.recipe.label_smoothing,
            )
            if self.recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
            self.optimizer.step()
            self.step += 1
            self._update_average()
            self.sums += losses_and_errors  # no waiting for a GPU here
            if self.is_cautious:
                self.is_cautious = bool(losses_and_errors[1] >= self.recipe.cautious_until_error)
        if not torch.isfinite(self.sums[0]):  # this is where the CPU waits for it
            raise Diverged(
                f"the loss is no longer finite at step {self.step}; the last checkpoint is intact: "
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

    def _next_batch(self) -> Batch:
        """Return this process's part of the next batch."""
        indices = batch_indices(self.seed, self.step, len(self.pictures), self.batch_size)
        part = self.world.part(len(indices))
        images = self.pictures.batch(indices, self.seed, self.epoch, self.step, part)
        batch = mixed(images, self.pictures.labels[indices[part]], self.recipe, self.seed, self.step)
        return replace(batch, class_weights=self.class_weights)

    def _averaged(self) -> list[Tensor]:
        """Return what is averaged: weights and batch-norm statistics, as live tensors."""
        return [tensor.detach() for tensor in self.model.state_dict().values() if tensor.is_floating_point()]

    def _update_average(self) -> None:
        if self.average is None or self.recipe.ema_decay is None or self.step % self.recipe.ema_every:
            return
        updates = self.step // self.recipe.ema_every
        decay = min(self.recipe.ema_decay, (1 + updates) / (10 + updates))  # quick to leave the random start behind
        torch._foreach_lerp_(self.average, self._averaged(), 1 - decay)

    def best_weights(self) -> dict[str, Tensor]:
        """Return the state dict to evaluate, export and serve: the moving average where there is one."""
        weights = dict(self.model.state_dict())
        if self.average is not None:
            names = [name for name, tensor in weights.items() if tensor.is_floating_point()]
            weights.update(zip(names, self.average, strict=True))
        return {name: tensor.detach().clone() for name, tensor in weights.items()}

    def state(self) -> dict[str, Any]:
        """Return what resuming needs beside the step: raw weights, momentum, average."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "sums": self.sums,
            "is_cautious": self.is_cautious,
        }

    def restore(self, step: int, state: dict[str, Any]) -> None:
        """Go back to a state returned by `state` at that step."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            for tensor, saved in zip(self.average, state["average"], strict=True):
                tensor.copy_(saved)
        self.sums.copy_(state["sums"])
        self.is_cautious = state.get("is_cautious", False)
        self.replicas.share_statistics()
        self.step = step
