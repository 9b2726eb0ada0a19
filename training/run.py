"""One run, from a recipe and a data set to a folder that says all about itself.

runs/<name>/run.json        recipe, seed, data fingerprints, held-out indices, versions, machine, results
runs/<name>/metrics.jsonl   a line for each evaluation
runs/<name>/skipped.csv     files that could not be decoded, with reasons (only if there are any)
runs/<name>/checkpoints/    see `training.checkpoint`
"""

import contextlib
import copy
import dataclasses
import json
import math
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training import checkpoint
from training.analysis import gradient_norms, layer_responses
from training.data import write_skipped
from training.distributed import World
from training.evaluate import errors_of, fit_temperature, logits_of
from training.hardware import Hardware
from training.loop import Training
from training.own_pictures import Part, skipped_files, split_table, whole
from training.prepare import Options, Run, RunError, now, prepare
from training.progress import Progress
from training.recipe import DESCRIPTIVE, Recipe, steps_per_epoch
from training.resnet import ResNet

_WARM_UP_STEPS, _TIMED_STEPS = 3, 10
_KEPT_FACTS = ("steps", "speed", "started", "git_commit", "gradient_norms")  # of a run that is resumed
_NEEDED_FACTS = ("recipe", "seed", "network", "labels", "held_out", "dataset", "hardware", "versions", "steps")
_POINTS_OF_A_TEST_CURVE = 40
_RESPONSE_IMAGES = 1000
_STEPS_BETWEEN_LOOKS = 10  # at the progress bar and at signals
_BUDGET_FOR_STEPS = 0.95  # of a time budget; the rest is for evaluations and checkpoints


def run(
    recipe: Recipe, options: Options, hardware: Hardware, progress: Progress, world: World | None = None
) -> dict[str, Any]:
    """Train, evaluate, and return the facts of run.json. In a world of several processes, each of them calls this.

    Raises RunError, DataError, CheckpointError, Diverged, or ValueError for a recipe that does not fit.
    """
    world = world or World()
    earlier = _earlier_facts(options)
    this = prepare(recipe, options, hardware, world, progress, earlier)
    world.any(False)  # all have looked at the folder before the first writes to it
    if earlier:
        _refuse_another_run(earlier, this.facts, progress)
        this.facts |= {key: earlier[key] for key in _KEPT_FACTS if key in earlier}
    elif options.time_budget_minutes is not None:
        this.facts |= _steps_within(this.training, options.time_budget_minutes, progress)
    this.training.total_steps = this.facts["steps"]
    _start_folder(this)
    if earlier:
        _restore(this)
    progress.say(
        f"training {this.facts['network']} on {len(this.training.pictures):,} pictures of {this.train_set.name} "
        f"for {this.facts['steps']:,} steps of {this.training.batch_size} on {hardware}"
    )
    _train(this)
    progress.say("trained and saved; evaluating")
    this.facts["results"] = _final_results(this)
    this.facts["layer_responses"] = _layer_responses(this)
    this.facts["finished"] = now()
    _write_facts(this)
    return this.facts


def _earlier_facts(options: Options) -> dict[str, Any] | None:
    """Return what run.json says of the run to resume, or None for a new run. Raises RunError where they do not fit."""
    file = options.out / "run.json"
    if not file.exists():
        if options.resume:
            raise RunError(f"there is no run in {options.out} to resume; leave out --resume to start it")
        return None
    if not options.resume:
        raise RunError(f"{options.out} holds a run already; go on with --resume, or give another --out")
    try:
        facts = json.loads(file.read_text())
        return {**facts, **{needed: facts[needed] for needed in _NEEDED_FACTS}}
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{file} is not what train-resnet run writes; give another --out") from None


def _refuse_another_run(earlier: dict[str, Any], facts: dict[str, Any], progress: Progress) -> None:
    """Raise RunError if the run in the folder is not the one asked for; say what keeps it from being bit-equal."""
    # A field that is newer than the run is as now; what only describes the recipe may change.
    described = {field: facts["recipe"][field] for field in DESCRIPTIVE if field != "name"}
    earlier = earlier | {"recipe": facts["recipe"] | earlier["recipe"] | described}
    for what in ("recipe", "seed", "network", "labels", "held_out"):
        if earlier.get(what) != facts[what]:
            raise RunError(
                f"the run in this folder has another {what}; resume it with the same options, or give another --out"
            )
    if earlier["dataset"]["fingerprint"] != facts["dataset"]["fingerprint"]:
        raise RunError("the pictures have changed since this run began; give another --out to train on the new ones")
    before, today = earlier["hardware"] | earlier["versions"], facts["hardware"] | facts["versions"]
    changed = [f"{key} was {before.get(key)}, is {today[key]}" for key in today if before.get(key) != today[key]]
    if changed:
        progress.say(f"going on, but not bit-equal to a run without interruption: {'; '.join(changed)}")


def _start_folder(this: Run) -> None:
    if not this.training.world.is_first:
        return
    try:
        this.options.out.mkdir(parents=True, exist_ok=True)
        skipped = skipped_files(this.parts, this.options.data)
        if skipped:
            write_skipped(skipped, this.options.out / "skipped.csv")
            where = this.options.out / "skipped.csv"
            this.progress.say(f"files that cannot be used: {len(skipped)}; {where} lists them with reasons")
        if this.facts["start"]:
            (this.options.out / "split.csv").write_text(split_table(this.parts, this.options.data), encoding="utf-8")
            if (
                not this.options.resume
            ):  # the weights that it starts from are kept before run.json says that it has begun
                _save(this)
    except OSError as error:
        raise RunError(f"cannot write to {this.options.out}: {error.strerror}; give another --out") from None
    _write_facts(this)


def _write_facts(this: Run) -> None:
    if not this.training.world.is_first:
        return
    content = (json.dumps(this.facts, indent=1) + "\n").encode()
    checkpoint.write_whole(this.options.out / "run.json", content)


def _layer_responses(this: Run) -> dict[str, float]:
    """Return the paper's figure 7, measured on a fixed sample of the training set."""
    count = min(_RESPONSE_IMAGES, len(this.train_set))
    sample = this.train_set.images[np.linspace(0, len(this.train_set) - 1, count, dtype=int)]
    responses = layer_responses(_network_to_hand_on(this), sample, this.training.pictures.normalise.channels_first)
    return {name: float(f"{value:.4g}") for name, value in responses.items()}


def _restore(this: Run) -> None:
    saved = checkpoint.load_latest(this.options.out)
    metrics = this.options.out / "metrics.jsonl"
    step = saved.step if saved else 0
    if saved:
        this.training.restore(saved.step, saved.state)
    elif this.facts["start"]:
        raise RunError(f"{this.options.out} has no checkpoint left; give another --out to start again")
    if metrics.exists() and this.training.world.is_first:
        lines = metrics.read_text().splitlines(keepends=True)
        kept = [line for line in lines if _step_of(line) <= step]
        checkpoint.write_whole(metrics, "".join(kept).encode())
    this.progress.say(f"going on from step {step:,}")


def _step_of(line: str) -> float:
    """Return the step of a line of metrics.jsonl; infinity for one that was cut off."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


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


def _train(this: Run) -> None:
    """Train to the end, with a line in metrics.jsonl each epoch and a checkpoint every few minutes."""
    training, recipe = this.training, this.training.recipe
    epoch_steps = steps_per_epoch(len(training.pictures), recipe.batch_size)
    saved_at = time.monotonic()
    with _stop_signals() as asked_to_stop:
        while training.step < training.total_steps:
            epoch_end = min((training.epoch + 1) * epoch_steps, training.total_steps)
            while training.step < epoch_end and not (stopping := training.world.any(bool(asked_to_stop))):
                training.train(_steps_to_next_look(this, epoch_end))
                if training.step in _moments(training):
                    _log_gradients(this)
                this.progress.show(training.step, training.total_steps, training.batch_size, training.means())
            if training.step == epoch_end:
                _log_epoch(this)
            if stopping or time.monotonic() - saved_at > 60 * this.options.checkpoint_every_minutes:
                _save(this)
                saved_at = time.monotonic()
            if stopping and training.step < training.total_steps:
                raise RunError(f"stopped at step {training.step:,}, which is saved; go on with --resume")
        _save(this)


def _moments(training: Training) -> tuple[int, int, int]:
    """Return the steps after which gradient norms are logged: the first, the middle and the last one."""
    return (1, max(1, training.total_steps // 2), training.total_steps)


def _steps_to_next_look(this: Run, epoch_end: int) -> int:
    """Return how many steps to go before something is to be shown, logged or heard."""
    step = this.training.step
    stops = [epoch_end, *(moment for moment in _moments(this.training) if moment > step)]
    return min(_STEPS_BETWEEN_LOOKS, *(stop - step for stop in stops))


def _log_gradients(this: Run) -> None:
    norms = {name: float(f"{norm:.4g}") for name, norm in gradient_norms(this.training.model).items()}
    this.facts.setdefault("gradient_norms", {})[str(this.training.step)] = norms
    _write_facts(this)


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT instead of dying from them, so that the step they meet can be saved."""
    received: list[int] = []
    previous = {
        number: signal.signal(number, lambda number, _frame: received.append(number))
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _log_epoch(this: Run) -> None:
    """Evaluate on the held-out pictures (if there are any) and add a line to metrics.jsonl."""
    training = this.training
    loss, error = training.means()
    training.sums.zero_()
    line = {
        "step": training.step,
        "epoch": round(training.step / steps_per_epoch(len(training.pictures), training.recipe.batch_size), 3),
        "learning_rate": training.optimizer.param_groups[-1]["lr"],
        "train_loss": round(loss, 5),
        "train_error": round(error, 3),  # of augmented pictures, while the weights changed
    }
    if len(this.held_out_part.indices):
        held_out = errors_of(*_answers(this, this.held_out_part))
        line |= {"held_out_loss": round(held_out.loss, 5), "held_out_error": round(held_out.top1, 3)}
    elif this.test_set is not None and _is_time_to_test(training):
        test = errors_of(*_answers(this, whole("test", this.test_set)))
        line |= {"test_loss": round(test.loss, 5), "test_error": round(test.top1, 3)}
    if training.world.is_first:
        with (this.options.out / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
    this.progress.log(line, training.total_steps)


def _is_time_to_test(training: Training) -> bool:
    """Whether this epoch's end gives a point of the test curve; without held-out pictures nothing is chosen by it."""
    epochs = training.total_steps / steps_per_epoch(len(training.pictures), training.recipe.batch_size)
    return training.step == training.total_steps or training.epoch % math.ceil(epochs / _POINTS_OF_A_TEST_CURVE) == 0


def _answers(this: Run, part: Part) -> tuple[Tensor, Tensor]:
    """Return the logits of the weights that the run would hand on, in full precision, and the labels."""
    world = this.training.world
    images = part.dataset.images[part.indices[world.part(len(part.indices))]]
    mine = logits_of(_network_to_hand_on(this), images, this.training.pictures.normalise.channels_first)
    return world.join_rows(mine, len(part.indices)), torch.from_numpy(part.labels)


def _network_to_hand_on(this: Run) -> ResNet:
    """Return a copy of the network with the weights to evaluate, export and serve, uncompiled."""
    model = copy.deepcopy(this.training.model)
    model.load_state_dict(this.training.best_weights())
    return model


def _save(this: Run) -> None:
    if this.training.world.is_first:
        checkpoint.save(this.options.out, this.training.step, this.training.best_weights(), this.training.state())


def _final_results(this: Run) -> dict[str, Any]:
    """Evaluate the final weights, without augmentation: what they were trained on, what was held out, the test set."""
    train_errors = errors_of(*_answers(this, Part("train", this.train_set, this.kept)))
    results: dict[str, Any] = {"train": dataclasses.asdict(train_errors)}
    if len(this.held_out_part.indices):
        logits, labels = _answers(this, this.held_out_part)
        errors = errors_of(logits, labels)
        results["held_out"] = dataclasses.asdict(errors)
        results["calibration"] = dataclasses.asdict(fit_temperature(logits, labels))
        this.progress.say(f"held-out error {errors.top1:.2f}% on {errors.images:,} pictures")
    if this.test_set is not None:
        errors = errors_of(*_answers(this, whole("test", this.test_set)))
        results["test"] = dataclasses.asdict(errors)
        expected = this.training.recipe.expected_error
        beside = f" (the recipe's full length: {expected:g}%)" if expected is not None else ""
        this.progress.say(f"test error {errors.top1:.2f}% on {errors.images:,} pictures{beside}")
    return results
