"""One run, from a recipe and a data set to a run folder.

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
    RESPONSE_IMAGES,
    final_layer_responses,
    final_results,
    final_weights,
    measure_epoch,
    weights_so_far,
)
from training.runs.options import Interrupted, Options, RunError
from training.runs.progress import Progress
from training.runs.provenance import now
from training.runs.setup import Run, prepare
from training.runs.time_budget import TimeBudget
from training.trainer.interrupts import Stop, Stopped
from training.trainer.loop import Diverged, Training
from training.weights import checkpoint

_TIMED_STEPS = 10  # for the first number of steps of a time budget
_MOST_TIMING = 0.05  # of a time budget
_KEPT_FACTS = ("steps", "speed", "started", "git_commit", "gradient_norms")  # from run.json of a resumed run
_MOST_STEPS_BETWEEN_LOOKS = 100  # at the progress bar and at signals
_SECONDS_BETWEEN_LOOKS = 1.0


def run(
    recipe: Recipe, options: Options, hardware: Hardware, progress: Progress, world: World | None = None
) -> dict[str, Any]:
    """Train, evaluate, and return the facts of run.json. Each process of a world calls it.

    Raises RunError, DataError, CheckpointError, Diverged, or ValueError for a recipe that does not fit.
    """
    earlier = earlier_facts(options)
    stop = Stop()
    with stop.listening():
        try:
            with stop.at_once():
                run = _prepared(recipe, options, hardware, progress, world or World(), stop, earlier)
        except Stopped:
            raise Interrupted("stopped before the first step; give the same command again") from None
        with contextlib.closing(run.reader):
            return _trained(run, stop, is_resumed=earlier is not None)


def _trained(run: Run, stop: Stop, *, is_resumed: bool) -> dict[str, Any]:
    skipped = start_folder(run)
    if skipped:
        where = run.options.out / "skipped.csv"
        run.progress.log(f"files that cannot be used: {skipped}; {where} lists them with reasons")
    if is_resumed:
        _restore(run)
    try:
        _train(run, stop)
    except Diverged:
        run.facts["diverged"] = run.training.step
        write_facts(run)
        raise
    try:
        with stop.at_once():
            return _finished(run)
    except Stopped:
        raise Interrupted(
            f"stopped while evaluating; the weights of step {run.training.step:,} are saved; "
            f"continue with --resume {run.options.out}"
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
    """Return a run that is ready for its first step, or for the next one of a resumed run."""
    run = prepare(recipe, options, hardware, world, progress, earlier, stop)
    world.any(False)  # wait until all processes have read the folder, before one writes to it
    if earlier:
        refuse_another_run(earlier, run.facts, progress)
        run.facts |= {key: earlier[key] for key in _KEPT_FACTS if key in earlier}
    elif options.time_budget_minutes is not None:
        _start_budget(run, options.time_budget_minutes)
    run.training.total_steps = run.facts["steps"]
    progress.log(
        f"training {run.facts['network']} on {len(run.training.images):,} images of {run.data.train_set.name} "
        f"for {run.facts['steps']:,} steps of {run.training.batch_size} on {hardware}; images are resized by "
        f"{options.resizer}"
    )
    return run


def _restore(run: Run) -> None:
    saved = checkpoint.load_latest(run.options.out)
    step = saved.step if saved else 0
    if saved:
        run.training.restore(saved.step, saved.state)
        _restore_budget(run, saved.state)
        if run.selection:
            run.selection.restore(saved.state["selection"], saved.weights)
    elif run.facts["start"]:
        raise RunError(f"{run.options.out} has no checkpoint left; give another --out to start again")
    if run.training.world.is_first:
        cut_metrics(run.options.out, step - 1 if run.training.is_epoch_complete() else step)
    run.progress.log(f"continuing from step {step:,}")


def _restore_budget(run: Run, state: dict[str, Any]) -> None:
    """Continue with what was left of the time budget at a checkpoint."""
    if "budget" in state:
        run.budget = TimeBudget(**state["budget"] | {"began": run.options.began - state["spent_s"]})
        run.training.total_steps = run.facts["steps"] = state["total_steps"]


def _timed(run: Run, minutes: float) -> TimeBudget:
    """Return the time budget of a run, with the speed of some steps, after which the network is as before."""
    training = run.training
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    images = sum(len(part.labels) for part in run.data.parts) + min(RESPONSE_IMAGES, len(run.data.train_set))
    budget = TimeBudget(60 * minutes, run.options.began, images)
    training.train(1)
    while training.step <= _TIMED_STEPS and training.world.mean(budget.spent_s()) < _MOST_TIMING * budget.limit_s:
        _note_steps(run, budget, 1)
    if budget.step_s == 0:
        _note_steps(run, budget, 1)
    training.model.load_state_dict(before)
    training.start_afresh()
    budget.trained_s = 0.0
    return budget


def _note_steps(run: Run, budget: TimeBudget, steps: int) -> None:
    """Train some steps, and measure them."""
    start = time.monotonic()
    run.training.train(steps)
    budget.note_steps(steps, run.training.world.mean(time.monotonic() - start), run.training.batch_size)


def _start_budget(run: Run, minutes: float) -> None:
    """Measure the speed, and set the number of steps that fit into the time budget of a new run."""
    run.budget = budget = _timed(run, minutes)
    budget.updated_s = run.training.world.mean(budget.spent_s())
    steps, steps_per_s = max(1, budget.steps_left(budget.updated_s)), 1 / budget.step_s
    run.progress.log(f"{steps_per_s:.2f} steps/s: a budget of {minutes:g} minutes is about {steps:,} steps")
    run.facts |= {
        "steps": steps,
        "speed": {"steps_per_s": round(steps_per_s, 3), "time_budget_minutes": minutes},
    }


def _keep_to_budget(run: Run) -> None:
    """Compute again how many steps fit into the time budget, if there is one."""
    training, budget = run.training, run.budget
    if budget is None or _is_over(run):
        return
    spent_s = training.world.mean(budget.spent_s())
    if budget.is_due(spent_s):
        training.total_steps = max(1, training.step + budget.steps_left(spent_s))
        run.facts["steps"] = training.total_steps
        if _is_over(run):
            _log_gradients(run)


def _train(run: Run, stop: Stop) -> None:
    """Train to the end, with a line in metrics.jsonl each epoch and a checkpoint every few minutes."""
    training = run.training
    saved_at = time.monotonic()
    steps = 1  # between looks
    while training.is_epoch_complete() or not _is_over(run):
        with contextlib.suppress(Stopped):  # the abandoned step has changed nothing
            if not training.is_epoch_complete():
                steps = _train_to_next_look(run, steps)
            _keep_to_budget(run)
            if training.is_epoch_complete():
                _log_epoch(run, stop)
        stopping = training.world.any(stop.is_requested)
        if stopping or time.monotonic() - saved_at > 60 * run.options.checkpoint_every_minutes:
            _save(run)
            saved_at = time.monotonic()
        if stopping:
            raise Interrupted(
                f"stopped at step {training.step:,}, which is saved; continue with --resume {run.options.out}"
            )
    _save(run)


def _save(run: Run) -> None:
    start = time.monotonic()
    save(run, weights_so_far(run))
    if run.budget:
        run.budget.note_checkpoint(run.training.world.mean(time.monotonic() - start))


def _is_over(run: Run) -> bool:
    return run.training.step >= run.training.total_steps or (run.selection is not None and run.selection.is_over)


def _train_to_next_look(run: Run, steps: int) -> int:
    """Train up to `steps` steps; return the number of steps before the next check of progress and signals."""
    training, began = run.training, time.monotonic()
    epoch_end = min((training.epoch + 1) * training.epoch_steps, training.total_steps)
    stops = [epoch_end, *(moment for moment in _moments(training) if moment > training.step)]
    steps = min(steps, *(stop - training.step for stop in stops))
    training.train(steps)
    if training.step in _moments(training):
        _log_gradients(run)
    run.progress.show(training.step, training.total_steps, training.batch_size, training.means())
    seconds = max(training.world.mean(time.monotonic() - began), 1e-9)
    if run.budget:
        run.budget.note_steps(steps, seconds, training.batch_size)
    return max(1, min(_MOST_STEPS_BETWEEN_LOOKS, int(_SECONDS_BETWEEN_LOOKS * steps / seconds)))


def _moments(training: Training) -> tuple[int, int, int]:
    """Return the steps after which gradient norms are logged: the first, the middle and the last one."""
    return (1, max(1, training.total_steps // 2), training.total_steps)


def _log_gradients(run: Run) -> None:
    norms = {name: float(f"{norm:.4g}") for name, norm in gradient_norms(run.training.model).items()}
    logged = run.facts.setdefault("gradient_norms", {})
    if norms and all(map(math.isfinite, norms.values())):  # in float16 they may overflow, and the step is then skipped
        logged[str(run.training.step)] = norms
        write_facts(run)


def _log_epoch(run: Run, stop: Stop) -> None:
    """Evaluate, and append a line to metrics.jsonl. If Stopped is raised, the line is not written yet."""
    training = run.training
    weights = training.weights_to_keep()
    began = time.monotonic()
    with stop.at_once():
        measured = measure_epoch(run, weights)
    if run.budget and measured:
        evaluated = len(run.data.held_out_part.labels) or len(run.data.test_part.labels if run.data.test_part else ())
        run.budget.note_evaluation(training.world.mean(time.monotonic() - began), evaluated, training.batch_size)
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
    if run.selection:
        run.selection.see(measured[f"held_out_{run.selection.metric}"], training.step, weights)
        if run.selection.is_over:
            _log_gradients(run)
    append_metrics(run, line)
    run.progress.log_epoch(line, training.total_steps)


def _finished(run: Run) -> dict[str, Any]:
    """Measure the final weights, and return the facts of run.json."""
    weights = final_weights(run)
    if run.training.recipe.precise_bn_images:
        save(run, weights)
    if run.selection:
        run.facts["best"] = run.selection.facts()
        run.progress.log(f"the best weights are those of step {run.selection.step:,}")
    if run.training.step < run.training.total_steps:
        run.facts["stopped_early"] = run.training.step
    run.progress.log("trained and saved; evaluating")
    run.facts["results"] = final_results(run, weights)
    run.facts["layer_responses"] = final_layer_responses(run, weights)
    run.facts["finished"] = now()
    write_facts(run)
    return run.facts
