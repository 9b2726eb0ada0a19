"""The folder of a run; `training.runs.run` lists its files."""

import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor

from service.images.preprocessing import PILLOW, installed_resizers
from training.data.dataset import write_skipped
from training.data.splits import skipped_files, split_table
from training.recipes.recipe import DESCRIPTIVE
from training.runs.options import Options, RunError
from training.runs.progress import Progress
from training.runs.record import METRICS_FILE, RUN_FILE, RecordError, read_facts
from training.runs.setup import Run
from training.weights import checkpoint

_LENGTHS = {"epochs", "steps"}


def earlier_facts(options: Options) -> dict[str, Any] | None:
    """Return run.json of the run to resume, or None for a new run. Raises RunError if the options do not match."""
    file = options.out / RUN_FILE
    if not file.exists():
        if options.resume:
            raise RunError(f"there is no run in {options.out} to resume; leave out --resume to start it")
        return None
    if not options.resume and has_diverged(options.out):
        return None
    if not options.resume:
        raise RunError(f"{options.out} already has a run; continue it with --resume, or give another --out")
    try:
        facts = read_facts(options.out)
    except RecordError as error:
        raise RunError(f"{error}; give another --out") from None
    _refuse_another_resizer(facts, options)
    return facts


def has_diverged(run: Path) -> bool:
    """Return whether the folder has a run whose loss or weights ceased to be finite."""
    try:
        return "diverged" in read_facts(run)
    except RecordError:
        return False


def _move_diverged_run(run: Run) -> None:
    """Rename the folder of a diverged run, so that a new run can have its name."""
    out = run.options.out
    if run.options.resume or not has_diverged(out):
        return
    aside = next(
        path for number in itertools.count(1) if not (path := out.with_name(f"{out.name}-diverged-{number}")).exists()
    )
    out.rename(aside)
    run.progress.log(f"the run that diverged in {out} is now {aside}")


def _refuse_another_resizer(earlier: dict[str, Any], options: Options) -> None:
    """Raise RunError if the run's images were resized by another resizer, before any image is read."""
    before = earlier.get("resizer", PILLOW)  # older runs had no other resizer
    if before != options.resizer:
        fix = f"add --resizer {before}" if before in installed_resizers() else f"install {before}"
        raise RunError(
            f"the images of the run in {options.out} were resized by {before}, not by {options.resizer}; "
            f"{fix}, or give another --out"
        )


def refuse_another_run(earlier: dict[str, Any], facts: dict[str, Any], progress: Progress) -> None:
    """Raise RunError if the run in the folder is another one; log differences that prevent bit-equal results."""
    # A field that is newer than the run has its present value; descriptive fields may differ.
    described = {field: facts["recipe"][field] for field in DESCRIPTIVE if field != "name"}
    earlier = earlier | {"recipe": facts["recipe"] | earlier["recipe"] | described}
    fields = [name for name, value in facts["recipe"].items() if earlier["recipe"].get(name) != value]
    if fields and set(fields) <= _LENGTHS:
        raise RunError(
            f"the run in this folder has another length ({', '.join(fields)}), which its learning rates follow; to "
            "train on, start a new run from its weights: --weights THIS_RUN --out NEW_RUN"
        )
    if fields:
        raise RunError(
            f"the run in this folder has another recipe ({', '.join(fields)}); resume it with the same options, or "
            "give another --out"
        )
    for what in ("seed", "network", "labels", "held_out"):
        if earlier.get(what) != facts[what]:
            raise RunError(
                f"the run in this folder has another {what}; resume it with the same options, or give another --out"
            )
    if earlier["dataset"]["fingerprint"] != facts["dataset"]["fingerprint"]:
        raise RunError("the images have changed since this run began; give another --out to train on the new ones")
    today = facts["hardware"] | facts["versions"]
    before = today | earlier["hardware"] | earlier["versions"]
    changed = [f"{key} was {before[key]}, is {today[key]}" for key in today if before[key] != today[key]]
    if changed:
        progress.log(f"continuing, but not bit-equal to an uninterrupted run: {'; '.join(changed)}")


def start_folder(run: Run) -> int:
    """Create the folder with run.json and, if the run starts from weights, their file.

    Returns the number of unusable files, which skipped.csv lists.
    """
    if not run.training.world.is_first:
        return 0
    try:
        _move_diverged_run(run)
        run.options.out.mkdir(parents=True, exist_ok=True)
        skipped = skipped_files(run.data.parts, run.options.data)
        if skipped:
            write_skipped(skipped, run.options.out / "skipped.csv")
        if run.facts["start"]:
            (run.options.out / "split.csv").write_bytes(split_table(run.data.parts, run.options.data))
            if not run.options.resume:  # written before run.json marks the start of the run
                save(run, run.training.weights_to_keep())
    except OSError as error:
        raise RunError(f"cannot write to {run.options.out}: {error.strerror}; give another --out") from None
    write_facts(run)
    return len(skipped)


def save(run: Run, weights: dict[str, Tensor]) -> None:
    """Write a checkpoint, with the weights to evaluate, export and serve."""
    state = run.training.state() | ({"selection": run.selection.state()} if run.selection else {})
    if run.budget:
        state |= {
            "budget": dataclasses.asdict(run.budget),
            "spent_s": run.budget.spent_s(),
            "total_steps": run.training.total_steps,
        }
    if run.training.world.is_first:
        checkpoint.save(run.options.out, run.training.step, weights, state)


def write_facts(run: Run) -> None:
    """Write run.json."""
    if run.training.world.is_first:
        content = (json.dumps(run.facts, indent=1) + "\n").encode()
        checkpoint.write_whole(run.options.out / RUN_FILE, content)


def append_metrics(run: Run, line: dict[str, Any]) -> None:
    """Add a line to metrics.jsonl."""
    if run.training.world.is_first:
        with (run.options.out / METRICS_FILE).open("a") as file:
            file.write(json.dumps(line) + "\n")


def cut_metrics(run: Path, step: int) -> None:
    """Remove lines of metrics.jsonl that are damaged or later than `step`."""
    metrics = run / METRICS_FILE
    if metrics.exists():
        lines = metrics.read_text().splitlines(keepends=True)
        kept = [line for line in lines if _step_of(line) <= step]
        checkpoint.write_whole(metrics, "".join(kept).encode())


def _step_of(line: str) -> float:
    """Return the step of a line of metrics.jsonl; infinity for an incomplete line."""
    try:
        return float(json.loads(line)["step"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf
