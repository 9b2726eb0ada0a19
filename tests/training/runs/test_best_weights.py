"""The best weights of a run, by its held-out images, and runs that end early."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.runs.test_run import RECIPE, train
from training.recipes.recipe import Recipe
from training.runs.best_weights import Selection, selection_of
from training.runs.measurements import measure_epoch
from training.runs.options import RunError
from training.weights.checkpoint import find_weights, load_latest, read_weights


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"fc.weight": torch.tensor(value)}


def test_the_best_weights_are_kept_and_waiting_ends_after_so_many_epochs_without_better_ones() -> None:
    selection = Selection("error", patience=2)
    for step, error in ((10, 30.0), (20, 20.0), (30, 20.0)):
        selection.see(error, step, weights(step))
        assert not selection.is_over
    selection.see(float("nan"), 40, weights(40))
    assert selection.is_over
    assert selection.weights == weights(20) and selection.facts() == {
        "metric": "held_out_error",
        "value": 20.0,
        "step": 20,
    }


def test_a_selection_goes_on_where_it_was() -> None:
    selection, again = Selection("loss", patience=3), Selection("loss", patience=3)
    selection.see(0.5, 10, weights(1))
    selection.see(0.7, 20, weights(2))
    again.restore(selection.state(), selection.weights)
    assert again == selection
    again.restore(Selection("loss", 3).state(), weights(9))
    assert again.weights == {}  # nothing had been evaluated yet


def test_patience_without_other_options_chooses_by_the_error() -> None:
    recipe = dataclasses.replace(RECIPE, early_stopping_patience=4)
    assert selection_of(recipe) == Selection("error", 4)
    assert selection_of(RECIPE) is None


def scripted(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let the held-out loss of each epoch be what is written here."""

    def measured(this: Any, kept: Any) -> dict[str, float]:
        return measure_epoch(this, kept) | {"held_out_loss": losses[this.training.epoch - 1]}

    monkeypatch.setattr("training.runs.run.measure_epoch", measured)


def test_a_run_that_does_not_get_better_ends_early_and_hands_on_its_best_weights(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(
        RECIPE, steps=70, ema_decay=None, choose_best="loss", early_stopping_patience=2, held_out_images=6
    )
    scripted(monkeypatch, [0.9, 0.5, 0.6, 0.5, 0.1])
    facts = train(images, tmp_path / "run", recipe)
    assert facts["best"] == {"metric": "held_out_loss", "value": 0.5, "step": 14}
    assert facts["stopped_early"] == 28 and facts["steps"] == 70
    assert list(facts["gradient_norms"]) == ["1", "28"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [7, 14, 21, 28]
    # Another run that is stopped at the best epoch has these very weights.
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    handed_on = read_weights(find_weights(tmp_path / "run"))
    best = weights_after(14, images, tmp_path / "short", recipe)
    assert all(torch.equal(handed_on[name], best[name]) for name in best)


def weights_after(step: int, images: Path, out: Path, recipe: Recipe) -> dict[str, Any]:
    """Return the weights at a step of a run of the same length, whose checkpoints are all made at epochs' ends."""
    from training.runs import run as module

    kept: dict[int, dict[str, Any]] = {}

    def keep(this: Any, values: dict[str, Any]) -> None:
        kept[this.training.step] = this.training.weights_to_keep()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "save", keep)
        train(images, out, dataclasses.replace(recipe, early_stopping_patience=None), checkpoint_every_minutes=0.0)
    return kept[step]


def test_a_run_that_has_ended_early_is_over_when_it_is_resumed(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = dataclasses.replace(RECIPE, steps=70, choose_best="loss", early_stopping_patience=1)
    scripted(monkeypatch, [0.5, 0.6, 0.1])
    facts = train(images, tmp_path / "run", recipe)
    again = train(images, tmp_path / "run", recipe, resume=True)
    assert again["stopped_early"] == facts["stopped_early"] == 14
    assert again["results"] == facts["results"] and again["best"] == facts["best"]


def test_nothing_can_be_chosen_without_held_out_images(images: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, choose_best="error", held_out_images=0)
    with pytest.raises(RunError, match="choosing the best weights needs held-out images; --set held_out_share"):
        train(images, tmp_path / "run", recipe)


def test_the_balanced_error_counts_every_class_the_same(images: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, steps=7, choose_best="balanced_error")
    facts = train(images, tmp_path / "run", recipe)
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert facts["best"]["metric"] == "held_out_balanced_error"
    assert facts["best"]["value"] == line["held_out_balanced_error"]
    assert load_latest(tmp_path / "run") is not None
