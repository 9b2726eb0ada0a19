"""One run, from a recipe and a data set to a folder that says all about itself.

runs/<name>/run.json        recipe, seed, data fingerprints, held-out indices, versions, machine, results
runs/<name>/metrics.jsonl   a line for each evaluation
runs/<name>/skipped.csv     files that could not be decoded, with reasons (only if there are any)
runs/<name>/checkpoints/    see `training.checkpoint`
"""

import contextlib
import copy
import dataclasses
import datetime
import json
import platform
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training import checkpoint
from training.data import DEFAULT_MAX_SKIPPED, Dataset, stratified_hold_out, write_skipped
from training.data import load as load_dataset
from training.evaluate import errors_of, fit_temperature, logits_of
from training.hardware import Hardware
from training.loop import Training
from training.progress import Progress
from training.recipes import Recipe, steps_per_epoch
from training.resnet import build

_WARM_UP_STEPS, _TIMED_STEPS = 5, 20
_STEPS_BETWEEN_LOOKS = 10  # at the progress bar and at signals
_BUDGET_FOR_STEPS = 0.95  # of a time budget; the rest is for evaluations and checkpoints


class RunError(Exception):
    """A run cannot start or go on. The message is one line that names the next step."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says beside the recipe."""

    out: Path
    data: Path
    test_data: Path | None = None
    seed: int = 0
    resume: bool = False
    time_budget_minutes: float | None = None
    checkpoint_every_minutes: float = 5.0
    max_skipped: float = DEFAULT_MAX_SKIPPED


@dataclass(slots=True)
class _Run:
    """One run under way."""

    options: Options
    progress: Progress
    train_set: Dataset
    test_set: Dataset | None
    held_out: NDArray[np.int64]  # indices into the training set
    training: Training
    facts: dict[str, Any]  # what run.json says


def run(recipe: Recipe, options: Options, hardware: Hardware, progress: Progress) -> dict[str, Any]:
    """Train, evaluate, and return the facts of run.json.

    Raises RunError, DataError, CheckpointError, Diverged, or ValueError for a recipe that does not fit.
    """
    earlier = _earlier_facts(options)
    this = _prepare(recipe, options, hardware, progress, earlier)
    if earlier:
        _refuse_another_run(earlier, this.facts, progress)
        this.facts |= {key: earlier[key] for key in ("steps", "speed", "started", "git_commit") if key in earlier}
    elif options.time_budget_minutes is not None:
        this.facts |= _steps_within(this.training, options.time_budget_minutes, progress)
    this.training.total_steps = this.facts["steps"]
    _start_folder(this)
    if earlier:
        _restore(this)
    progress.say(
        f"training {this.facts['network']} on {len(this.training.labels):,} pictures of {this.train_set.name} "
        f"for {this.facts['steps']:,} steps of {recipe.batch_size} on {hardware}"
    )
    _train(this)
    this.facts["results"] = _final_results(this)
    this.facts["finished"] = _now()
    _write_facts(this)
    return this.facts


def _prepare(
    recipe: Recipe, options: Options, hardware: Hardware, progress: Progress, earlier: dict[str, Any] | None
) -> _Run:
    train_set = load_dataset(options.data, recipe.image_size, max_skipped=options.max_skipped, announce=progress.say)
    test_set = _load_test_set(recipe, options, train_set, progress)
    count = min(recipe.held_out_images, len(train_set) // 10)
    held_out = stratified_hold_out(train_set.labels, count, options.seed)
    kept = np.setdiff1d(np.arange(len(train_set)), held_out)
    images = torch.from_numpy(np.array(train_set.images[kept]))
    preprocessing = earlier["preprocessing"] if earlier else _preprocessing(recipe, images)
    normalise = Normalise(preprocessing["mean"], preprocessing["standard_deviation"], hardware.device)
    torch.manual_seed(options.seed)
    model = build(
        recipe.network, num_classes=len(train_set.classes), shortcut=recipe.shortcut, stride_in=recipe.stride_in
    )
    if recipe.subtract == "pixel_mean":
        model.pixel_mean = normalise(images.float().mean(0)).permute(2, 0, 1).contiguous()
    training = Training(
        recipe=recipe,
        seed=options.seed,
        total_steps=recipe.total_steps(len(kept)),
        hardware=hardware,
        model=model.to(hardware.device),
        images=images.to(hardware.device),
        labels=torch.from_numpy(train_set.labels[kept]).to(hardware.device),
        normalise=normalise,
    )
    facts = {
        "name": options.out.resolve().name,
        "network": model.architecture.network,
        "depth": model.architecture.depth,
        "shortcut": model.architecture.shortcut,
        "stride_in": model.architecture.stride_in,
        "num_classes": model.num_classes,
        "labels": list(train_set.classes),
        "recipe": json.loads(json.dumps(dataclasses.asdict(recipe))),
        "steps": training.total_steps,
        "seed": options.seed,
        "preprocessing": preprocessing,
        "dataset": train_set.facts(),
        "test_dataset": test_set.facts() if test_set else None,
        "hardware": hardware.facts(),
        "versions": _versions(),
        "git_commit": _git_commit(),
        "started": _now(),
        "held_out": held_out.tolist(),
    }
    return _Run(options, progress, train_set, test_set, held_out, training, facts)


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
    except ValueError:
        raise RunError(f"{file} is not readable; give another --out") from None
    return dict(facts)


def _refuse_another_run(earlier: dict[str, Any], facts: dict[str, Any], progress: Progress) -> None:
    """Raise RunError if the run in the folder is not the one asked for; say what keeps it from being bit-equal."""
    for what in ("recipe", "seed", "network", "labels", "held_out"):
        if earlier.get(what) != facts[what]:
            raise RunError(
                f"the run in this folder has another {what}; resume it with the same options, or give another --out"
            )
    if earlier["dataset"]["fingerprint"] != facts["dataset"]["fingerprint"]:
        raise RunError("the pictures have changed since this run began; give another --out to train on the new ones")
    before, now = earlier["hardware"] | earlier["versions"], facts["hardware"] | facts["versions"]
    changed = [f"{key} was {before.get(key)}, is {now[key]}" for key in now if before.get(key) != now[key]]
    if changed:
        progress.say(f"going on, but not bit-equal to a run without interruption: {'; '.join(changed)}")


def _start_folder(this: _Run) -> None:
    try:
        this.options.out.mkdir(parents=True, exist_ok=True)
        skipped = [row for dataset in (this.train_set, this.test_set) if dataset for row in dataset.skipped]
        if skipped:
            write_skipped(skipped, this.options.out / "skipped.csv")
            this.progress.say(
                f"skipped {len(skipped)} files; {this.options.out / 'skipped.csv'} lists them with reasons"
            )
    except OSError as error:
        raise RunError(f"cannot write to {this.options.out}: {error.strerror}; give another --out") from None
    _write_facts(this)


def _write_facts(this: _Run) -> None:
    content = (json.dumps(this.facts, indent=1) + "\n").encode()
    checkpoint.write_whole(this.options.out / "run.json", content)


def _restore(this: _Run) -> None:
    saved = checkpoint.load_latest(this.options.out)
    metrics = this.options.out / "metrics.jsonl"
    step = saved.step if saved else 0
    if saved:
        this.training.restore(saved.step, saved.state)
    if metrics.exists():
        lines = metrics.read_text().splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
        checkpoint.write_whole(metrics, "".join(kept).encode())
    this.progress.say(f"going on from step {step:,}")


class Normalise:
    """uint8 pixels (N, H, W, 3) to floats with mean 0 and standard deviation 1 in each channel, in the same order."""

    def __init__(self, mean: list[float], standard_deviation: list[float], device: str) -> None:
        deviation = torch.tensor(standard_deviation, device=device)
        self._scale, self._shift = 1 / (255 * deviation), -torch.tensor(mean, device=device) / deviation

    def __call__(self, images: Tensor) -> Tensor:
        return images.to(self._scale.device).float() * self._scale + self._shift


def _preprocessing(recipe: Recipe, images: Tensor) -> dict[str, Any]:
    """Return how pictures become the network's input, in the model card's terms; the statistics are of `images`."""
    parts = [part.double().div(255).reshape(-1, 3) for part in torch.split(images, 1000)]
    pixels = sum(len(part) for part in parts)
    mean = sum(part.sum(0) for part in parts) / pixels
    variance = sum((part - mean).square().sum(0) for part in parts) / pixels
    return {
        "shorter_side": recipe.image_size,
        "crop": [recipe.image_size, recipe.image_size],
        "interpolation": "bilinear",
        "mean": [round(value, 6) for value in torch.as_tensor(mean).tolist()],
        "standard_deviation": [max(round(value, 6), 1e-3) for value in torch.as_tensor(variance).sqrt().tolist()],
    }


def _load_test_set(recipe: Recipe, options: Options, train_set: Dataset, progress: Progress) -> Dataset | None:
    if options.test_data is None:
        return None
    test_set = load_dataset(
        options.test_data, recipe.image_size, max_skipped=options.max_skipped, announce=progress.say
    )
    if test_set.classes != train_set.classes:
        different = sorted(set(test_set.classes) ^ set(train_set.classes))
        raise RunError(
            f"training and test data do not have the same classes; only in one of them: {', '.join(different)}"
        )
    return test_set


def _steps_within(training: Training, minutes: float, progress: Progress) -> dict[str, Any]:
    """Turn a time budget into a number of steps, by timing a few on the real network and then putting it back."""
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    training.train(_WARM_UP_STEPS)
    start = time.perf_counter()
    training.train(_TIMED_STEPS)
    steps_per_s = _TIMED_STEPS / (time.perf_counter() - start)
    training.model.load_state_dict(before)
    training.start_afresh()
    steps = max(1, int(minutes * 60 * _BUDGET_FOR_STEPS * steps_per_s))
    progress.say(f"{steps_per_s:.2f} steps/s: a budget of {minutes:g} minutes is {steps:,} steps")
    return {"steps": steps, "speed": {"steps_per_s": round(steps_per_s, 3), "time_budget_minutes": minutes}}


def _train(this: _Run) -> None:
    """Train to the end, with a line in metrics.jsonl each epoch and a checkpoint every few minutes."""
    training, recipe = this.training, this.training.recipe
    epoch_steps = steps_per_epoch(len(training.labels), recipe.batch_size)
    saved_at = time.monotonic()
    with _stop_signals() as asked_to_stop:
        while training.step < training.total_steps:
            epoch_end = min((training.epoch + 1) * epoch_steps, training.total_steps)
            while training.step < epoch_end and not asked_to_stop:
                training.train(min(_STEPS_BETWEEN_LOOKS, epoch_end - training.step))
                this.progress.show(training.step, training.total_steps, recipe.batch_size, training.means())
            if training.step == epoch_end:
                _log_epoch(this)
            if asked_to_stop or time.monotonic() - saved_at > 60 * this.options.checkpoint_every_minutes:
                _save(this)
                saved_at = time.monotonic()
            if asked_to_stop and training.step < training.total_steps:
                raise RunError(f"stopped at step {training.step:,}, which is saved; go on with --resume")
        _save(this)


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


def _log_epoch(this: _Run) -> None:
    """Evaluate on the held-out pictures (if there are any) and add a line to metrics.jsonl."""
    training = this.training
    loss, error = training.means()
    training.sums.zero_()
    line = {
        "step": training.step,
        "epoch": round(training.step / steps_per_epoch(len(training.labels), training.recipe.batch_size), 3),
        "learning_rate": training.recipe.learning_rate_at(training.step - 1, training.total_steps),
        "train_loss": round(loss, 5),
        "train_error": round(error, 3),  # of augmented pictures, while the weights changed
    }
    if len(this.held_out):
        held_out = errors_of(_logits(this, this.train_set, this.held_out), _labels(this.train_set, this.held_out))
        line |= {"held_out_loss": round(held_out.loss, 5), "held_out_error": round(held_out.top1, 3)}
    with (this.options.out / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    this.progress.log(line, training.total_steps)


def _logits(this: _Run, dataset: Dataset, indices: NDArray[np.int64] | None = None) -> Tensor:
    """Return the logits of the weights that the run would hand on, in full precision, uncompiled."""
    model = copy.deepcopy(this.training.model)
    model.load_state_dict(this.training.best_weights())
    images = dataset.images if indices is None else dataset.images[indices]
    return logits_of(model, images, lambda batch: this.training.normalise(batch).permute(0, 3, 1, 2))


def _labels(dataset: Dataset, indices: NDArray[np.int64] | None = None) -> Tensor:
    return torch.from_numpy(dataset.labels if indices is None else dataset.labels[indices])


def _save(this: _Run) -> None:
    checkpoint.save(this.options.out, this.training.step, this.training.best_weights(), this.training.state())


def _final_results(this: _Run) -> dict[str, Any]:
    """Evaluate the final weights: held-out pictures (with the temperature fitted on them), and the test set once."""
    results: dict[str, Any] = {}
    if len(this.held_out):
        logits, labels = _logits(this, this.train_set, this.held_out), _labels(this.train_set, this.held_out)
        results["held_out"] = dataclasses.asdict(errors_of(logits, labels))
        results["calibration"] = dataclasses.asdict(fit_temperature(logits, labels))
    if this.test_set is not None:
        errors = errors_of(_logits(this, this.test_set), _labels(this.test_set))
        results["test"] = dataclasses.asdict(errors)
        expected = this.training.recipe.expected_error
        beside = f" (the recipe's full length: {expected:g}%)" if expected is not None else ""
        this.progress.say(f"test error {errors.top1:.2f}% on {errors.images:,} pictures{beside}")
    return results


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}


def _git_commit() -> str | None:
    """Return the commit of this code, or None outside a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
