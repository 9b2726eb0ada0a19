"""Checks before a run: one batch through all stages, or one batch until its loss is near zero; no files are kept."""

import contextlib
import dataclasses
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from training.evaluation.evaluate import errors_of
from training.hardware.devices import Hardware
from training.hardware.process_group import World
from training.recipes.recipe import Recipe
from training.runs.folder import earlier_facts, start_folder
from training.runs.measurements import answers, final_weights
from training.runs.options import Interrupted, Options, RunError
from training.runs.progress import Progress
from training.runs.setup import Run, prepare
from training.trainer.interrupts import Stop, Stopped
from training.weights import checkpoint

_IMAGES_TO_LEARN = 32
_STEPS_TO_LEARN = 500  # after which the loss counts as stuck
_STEPS_BETWEEN_LOOKS = 5
_LEARNT_LOSS = 0.01  # the right class with a probability of 99%


def dry_run(recipe: Recipe, options: Options, hardware: Hardware, progress: Progress, world: World) -> None:
    """Take one batch forward and backward, update, evaluate, write a checkpoint and read it back; log each result.

    Raises the exceptions of a run.
    """
    earlier_facts(options)  # raises for unsuitable folders
    with _ending_at_once(), tempfile.TemporaryDirectory(prefix=".dry-run-", dir=_place_for(options.out)) as folder:
        elsewhere = dataclasses.replace(options, out=Path(folder), resume=False)
        one_batch = min(recipe.precise_bn_images, recipe.batch_size)
        run = prepare(
            dataclasses.replace(recipe, precise_bn_images=one_batch), elsewhere, hardware, world, progress, None, Stop()
        )
        start_folder(run)
        for attempt in (_describe_data, _try_a_step, _try_evaluation, _try_a_checkpoint, _memory):
            progress.log(f"works: {attempt(run)}")
    progress.log("all stages work; only the packed images were kept, which the run will use")


def overfit_batch(recipe: Recipe, options: Options, hardware: Hardware, progress: Progress, world: World) -> None:
    """Train on one fixed batch until its loss is near zero, which any correct network can reach.

    At most 32 images are used, with the recipe's learning rate scaled to them. Mixing, smoothing, decay and schedule
    are off, because they keep a loss above zero. Raises RunError if the loss stays high, and the exceptions of a run.
    """
    with _ending_at_once():
        run = prepare(_plain(recipe), options, hardware, world, progress, None, Stop())
        training = run.training
        training.total_steps = _STEPS_TO_LEARN
        batch = training.next_batch()
        first = None
        while training.step < _STEPS_TO_LEARN:
            training.sums.zero_()
            training.train(1 if first is None else min(_STEPS_BETWEEN_LOOKS, _STEPS_TO_LEARN - training.step), batch)
            loss, error = training.means()
            first = loss if first is None else first
            progress.show(training.step, _STEPS_TO_LEARN, training.batch_size, (loss, error))
            if loss < _LEARNT_LOSS:
                progress.log(
                    f"the network can learn: its loss on {training.batch_size} images fell from {first:.3f} to "
                    f"{loss:.4f} in {training.step} steps"
                )
                return
    raise RunError(
        f"the network does not learn {training.batch_size} images: the loss went from {first:.3f} to {loss:.4f} in "
        f"{training.step} steps; look at the labels, and try another --set learning_rate"
    )


def _plain(recipe: Recipe) -> Recipe:
    count = min(recipe.batch_size, _IMAGES_TO_LEARN)
    return dataclasses.replace(
        recipe,
        batch_size=count,
        learning_rate=recipe.learning_rate * count / recipe.batch_size,  # Goyal et al. 2017
        schedule="steps",
        milestones=(),
        warmup=0.0,
        cautious_rate=None,
        weight_decay=0.0,
        label_smoothing=0.0,
        mixup=0.0,
        cutmix=0.0,
        ema_decay=None,
        micro_batches=1,
    )


@contextlib.contextmanager
def _ending_at_once() -> Iterator[None]:
    stop = Stop()
    try:
        with stop.listening(), stop.at_once():
            yield
    except Stopped:
        raise Interrupted("stopped; no files were kept") from None


def _place_for(out: Path) -> Path:
    """Return the nearest existing folder on the path of a run's folder, so that its disk is the one that is tried."""
    return next(folder for folder in out.absolute().parents if folder.is_dir())


def _describe_data(run: Run) -> str:
    tested = f", {len(run.data.test_set):,} for testing" if run.data.test_set else ""
    skipped = f", {len(run.data.train_set.skipped)} files skipped" if run.data.train_set.skipped else ""
    apart = len(run.data.held_out_part.labels)
    held_out = f", {apart:,} held out" if apart else ""
    classes = len(run.data.train_set.classes)
    return f"data: {len(run.training.images):,} images in {classes} classes{held_out}{tested}{skipped}"


def _try_a_step(run: Run) -> str:
    began = time.perf_counter()
    run.training.train(1)
    loss, error = run.training.means()
    return (
        f"forward, backward and update of {run.facts['network']} with {run.training.batch_size} images on "
        f"{run.training.hardware}: loss {loss:.3f}, error {error:.1f}%, {time.perf_counter() - began:.2f} s"
    )


def _try_evaluation(run: Run) -> str:
    part = run.data.test_part or run.data.training_part
    few = dataclasses.replace(part, indices=part.indices[: run.training.batch_size])
    errors = errors_of(*answers(run, final_weights(run), few))
    return f"evaluation of {errors.images} images: error {errors.top1:.1f}%"


def _try_a_checkpoint(run: Run) -> str:
    training = run.training
    if not training.world.is_first:
        return "checkpoint: the first process writes it"
    folder = checkpoint.save(run.options.out, training.step, training.weights_to_keep(), training.state())
    saved = checkpoint.load_latest(run.options.out)
    if saved is None:
        raise RunError(f"a checkpoint written to {folder} could not be read back; give --out on another disk")
    training.restore(saved.step, saved.state)
    size = sum(file.stat().st_size for file in folder.iterdir())
    return f"checkpoint written and read back: {size / 1e6:.1f} MB"


def _memory(_run: Run) -> str:
    if torch.cuda.is_available():
        return f"memory: at most {torch.cuda.max_memory_reserved() / 2**20:,.0f} MiB of the GPU"
    return f"memory: at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB"
