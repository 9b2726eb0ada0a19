"""One run, from a recipe and a data set to a folder that says all about itself.

runs/<name>/run.json        recipe, seed, data fingerprints, held-out indices, versions, machine, results
runs/<name>/metrics.jsonl   a line for each evaluation
runs/<name>/skipped.csv     files that could not be decoded, with reasons (only if there are any)
runs/<name>/checkpoints/    see `training.weights.checkpoint`
"""

import contextlib
import math
import time
from typing import Any

from training.evaluation.layer_probes import gradient_norms
from training.hardware.devices import Hardware
from training.hardware.process_group import World
from training.recipes.recipe import Recipe
from training.runs.folder import (
    append_metrics,
    cut_metrics,
    earlier_facts,
    refuse_another_run,
    save,
    start_folder,
    write_facts,
)
from training.runs.measurements import (
    final_layer_responses,
    final_results,
    final_weights,
    measure_epoch,
    weights_so_far,
)
from training.runs.progress import Progress
from training.runs.setup import Interrupted, Options, Run, RunError, now, prepare
from training.trainer.interrupts import Stop, Stopped
from training.trainer.loop import Training
from training.weights import checkpoint

_WARM_UP_STEPS, _TIMED_STEPS = 3, 10
_KEPT_FACTS = ("steps", "speed", "started", "git_commit", "gradient_norms")  # of a run that is resumed
_MOST_STEPS_BETWEEN_LOOKS = 100  # at the progress bar and at signals
_SECONDS_BETWEEN_LOOKS = 1.0
_BUDGET_FOR_STEPS = 0.95  # of a time budget; the rest is for evaluations and checkpoints


def run(
    recipe: Recipe, options: Options, hardware: Hardware, progress: Progress, world: World | None = None
) -> dict[str, Any]:
    """Train, evaluate, and return the facts of run.json. In a world of several processes, each of them calls this.

    Raises RunError, DataError, CheckpointError, Diverged, or ValueError for a recipe that does not fit.
    """
    earlier = earlier_facts(options)
    stop = Stop()
    with stop.listening():
        try:
            with stop.at_once():
                this = _prepared(recipe, options, hardware, progress, world or World(), stop, earlier)
        except Stopped:
            raise Interrupted("stopped before the first step; give the same command again") from None
        with contextlib.closing(this.reader):
            return _trained(this, stop, is_resumed=earlier is not None)


def _trained(this: Run, stop: Stop, *, is_resumed: bool) -> dict[str, Any]:
    skipped = start_folder(this)
    if skipped:
        where = this.options.out / "skipped.csv"
        this.progress.say(f"files that cannot be used: {skipped}; {where} lists them with reasons")
    if is_resumed:
        _restore(this)
    _train(this, stop)
    try:
        with stop.at_once():
            return _finished(this)
    except Stopped:
        raise Interrupted(
            f"stopped while evaluating; the weights of step {this.training.step:,} are saved: go on with --resume"
        ) from None


def _prepared(
    recipe: Recipe,
    options: Options,
    hardware: Hardware,
    progress: Progress,
    world: World,
    stop: Stop,
    earlier: dict[str, Any] | None,
) -> Run:
    """Return a run that could begin, or go on where the earlier one was left."""
    this = prepare(recipe, options, hardware, world, progress, earlier, stop)
    world.any(False)  # all have looked at the folder before the first writes to it
    if earlier:
        refuse_another_run(earlier, this.facts, progress)
        this.facts |= {key: earlier[key] for key in _KEPT_FACTS if key in earlier}
    elif options.time_budget_minutes is not None:
        this.facts |= _steps_within(this.training, options.time_budget_minutes, progress)
    this.training.total_steps = this.facts["steps"]
    progress.say(
        f"training {this.facts['network']} on {len(this.training.images):,} images of {this.train_set.name} "
        f"for {this.facts['steps']:,} steps of {this.training.batch_size} on {hardware}; images are resized by "
        f"{options.resizer}"
    )
    return this


def _restore(this: Run) -> None:
    saved = checkpoint.load_latest(this.options.out)
    step = saved.step if saved else 0
    if saved:
        this.training.restore(saved.step, saved.state)
        if this.selection:
            this.selection.restore(saved.state["selection"], saved.weights)
    elif this.facts["start"]:
        raise RunError(f"{this.options.out} has no checkpoint left; give another --out to start again")
    if this.training.world.is_first:
        cut_metrics(this.options.out, step - 1 if this.training.is_epoch_complete() else step)
    this.progress.say(f"going on from step {step:,}")


def _steps_within(training: Training, minutes: float, progress: Progress) -> dict[str, Any]:
    """Turn a time budget into a number of steps, by timing a few on the real network and then putting it back."""
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    began = time.perf_counter()
    training.train(_WARM_UP_STEPS)
    start = time.perf_counter()
    training.train(_TIMED_STEPS)
    steps_per_s = _TIMED_STEPS / training.world.mean(time.perf_counter() - start)
    left_s = max(0.0, minutes * 60 - training.world.mean(time.perf_counter() - began))
    training.model.load_state_dict(before)
    training.start_afresh()
    steps = max(1, int(left_s * _BUDGET_FOR_STEPS * steps_per_s))
    progress.say(f"{steps_per_s:.2f} steps/s: a budget of {minutes:g} minutes is {steps:,} steps")
    return {"steps": steps, "speed": {"steps_per_s": round(steps_per_s, 3), "time_budget_minutes": minutes}}


def _train(this: Run, stop: Stop) -> None:
    """Train to the end, with a line in metrics.jsonl each epoch and a checkpoint every few minutes."""
    training = this.training
    saved_at = time.monotonic()
    steps = 1  # between looks
    while training.is_epoch_complete() or not _is_over(this):
        with contextlib.suppress(Stopped):  # what was under way has left no trace
            if not training.is_epoch_complete():
                steps = _train_to_next_look(this, steps)
            if training.is_epoch_complete():
                _log_epoch(this, stop)
        stopping = training.world.any(stop.asked)
        if stopping or time.monotonic() - saved_at > 60 * this.options.checkpoint_every_minutes:
            save(this, weights_so_far(this))
            saved_at = time.monotonic()
        if stopping:
            raise Interrupted(f"stopped at step {training.step:,}, which is saved; go on with --resume")
    save(this, weights_so_far(this))


def _is_over(this: Run) -> bool:
    return this.training.step >= this.training.total_steps or (this.selection is not None and this.selection.is_over)


def _train_to_next_look(this: Run, steps: int) -> int:
    """Train some steps, up to `steps`, and return how many more there may be before something is to be looked at."""
    training, began = this.training, time.monotonic()
    epoch_end = min((training.epoch + 1) * training.epoch_steps, training.total_steps)
    stops = [epoch_end, *(moment for moment in _moments(training) if moment > training.step)]
    steps = min(steps, *(stop - training.step for stop in stops))
    training.train(steps)
    if training.step in _moments(training):
        _log_gradients(this)
    this.progress.show(training.step, training.total_steps, training.batch_size, training.means())
    seconds = training.world.mean(time.monotonic() - began) / steps
    return max(1, min(_MOST_STEPS_BETWEEN_LOOKS, int(_SECONDS_BETWEEN_LOOKS / seconds)))


def _moments(training: Training) -> tuple[int, int, int]:
    """Return the steps after which gradient norms are logged: the first, the middle and the last one."""
    return (1, max(1, training.total_steps // 2), training.total_steps)


def _log_gradients(this: Run) -> None:
    norms = {name: float(f"{norm:.4g}") for name, norm in gradient_norms(this.training.model).items()}
    logged = this.facts.setdefault("gradient_norms", {})
    if norms and all(
        map(math.isfinite, norms.values())
    ):  # in float16 they may overflow, and then the step has been left out
        logged[str(this.training.step)] = norms
        write_facts(this)


def _log_epoch(this: Run, stop: Stop) -> None:
    """Evaluate, and add a line to metrics.jsonl. Raises Stopped, and then the line is still to be written."""
    training = this.training
    weights = training.weights_to_keep()
    with stop.at_once():
        measured = measure_epoch(this, weights)
    loss, error = training.means()
    training.sums.zero_()
    line = {
        "step": training.step,
        "epoch": round(training.step / training.epoch_steps, 3),
        "learning_rate": training.optimizer.param_groups[-1]["lr"],
        "train_loss": round(loss, 5),
        "train_error": round(error, 3),  # of augmented images, while the weights changed
        **measured,
    }
    if this.selection:
        this.selection.see(measured[f"held_out_{this.selection.metric}"], training.step, weights)
        if this.selection.is_over:
            _log_gradients(this)
    append_metrics(this, line)
    this.progress.log(line, training.total_steps)


def _finished(this: Run) -> dict[str, Any]:
    """Measure the weights that the run hands on, and return the facts of run.json."""
    weights = final_weights(this)
    if this.training.recipe.precise_bn_images:
        save(this, weights)
    if this.selection:
        this.facts["best"] = this.selection.facts()
        this.progress.say(f"the best weights are those of step {this.selection.step:,}")
    if this.training.step < this.training.total_steps:
        this.facts["stopped_early"] = this.training.step
    this.progress.say("trained and saved; evaluating")
    this.facts["results"] = final_results(this, weights)
    this.facts["layer_responses"] = final_layer_responses(this, weights)
    this.facts["finished"] = now()
    write_facts(this)
    return this.facts
