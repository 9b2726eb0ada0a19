"""The best weights of a run by the held-out images, and early stopping."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from training.recipes.recipe import Recipe


@dataclass(slots=True)
class Selection:
    """The best weights so far; `value` is their error in percent, or their loss."""

    metric: str
    patience: int | None  # epochs without a better value before the run ends; None: it never ends early
    value: float = math.inf
    step: int = 0
    epochs_since: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def see(self, value: float, step: int, weights: dict[str, Tensor]) -> None:
        """Store the weights of an epoch if they are the best so far."""
        if value < self.value:
            self.value, self.step, self.weights, self.epochs_since = value, step, weights, 0
        else:
            self.epochs_since += 1

    @property
    def is_over(self) -> bool:
        return self.patience is not None and self.epochs_since >= self.patience

    def facts(self) -> dict[str, Any]:
        """Return the entry of run.json."""
        return {"metric": f"held_out_{self.metric}", "value": self.value, "step": self.step}

    def state(self) -> dict[str, Any]:
        """Return the state for resuming, without the best weights, which the checkpoint has."""
        return {"value": self.value, "step": self.step, "epochs_since": self.epochs_since}

    def restore(self, state: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """Return to a state of `state`, with the weights of that checkpoint."""
        self.value, self.step, self.epochs_since = state["value"], state["step"], state["epochs_since"]
        self.weights = weights if math.isfinite(self.value) else {}


def selection_of(recipe: Recipe) -> Selection | None:
    """Return the selection of a run's weights, or None if the last ones are final."""
    if recipe.choose_best is None and recipe.early_stopping_patience is None:
        return None
    return Selection(recipe.choose_best or "error", recipe.early_stopping_patience)


def without_choice(recipe: Recipe, fixed: frozenset[str], most_of_a_class: int) -> Recipe:
    """Return a recipe that keeps its last weights, for a run that has no held-out images to choose by.

    `fixed` names the fields that the user has set, and the largest class has so many images. Raises ValueError, with
    the next step, if the user has set a choice, or if images could be held out.
    """
    if selection_of(recipe) is None:
        return recipe
    if most_of_a_class > 1:
        raise ValueError("choosing the best weights needs held-out images; --set held_out_share=0.1")
    settings = {"choose_best": recipe.choose_best, "early_stopping_patience": recipe.early_stopping_patience}
    if any(name in fixed and value is not None for name, value in settings.items()):
        raise ValueError(
            "choosing the best weights needs held-out images, and no class has a second image to hold out; add "
            f"images, or {' '.join(f'--set {name}=null' for name in settings)}"
        )
    return dataclasses.replace(recipe, choose_best=None, early_stopping_patience=None)
