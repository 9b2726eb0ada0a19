"""What was run, in sentences: networks, seeds, budget, images and machine; and the commands of missing runs."""

from collections.abc import Iterable

from training.report import numbers
from training.report.drawing import display
from training.report.numbers import Comparison
from training.report.runs import Run
from training.report.tables import budget

DATA = "--data cifar10-train.tar --test-data cifar10-test.tar"
SIGNALS_COMMAND = "train-resnet initial-signals --data cifar10-train.tar"
SURFACE_COMMAND = "train-resnet loss-surface --checkpoint training/results/NAME --data cifar10-test.tar"
SURFACE_NETWORKS = ("plain56", "resnet56")


def what_was_run(comparison: Comparison, has: Iterable[str] | None = None) -> str:
    """Return in a few sentences networks, seeds, budget, images and machine; `has`: of some of the networks only."""
    there = list(comparison.runs if has is None else has)
    names = [f"{display(network)} ({seeds_of(comparison.runs[network])})" for network in there]
    absent = [display(network) for network in numbers.THE_FOUR if network not in there]
    not_run = f" Not run yet: {', '.join(absent)}." if absent else ""
    return f"Run: {', '.join(names)}, {how_it_was_run(comparison)}{not_run}"


def seeds_of(runs: list[Run]) -> str:
    """Return seed 0, or seeds 0, 1."""
    return f"seed{'s' if len(runs) > 1 else ''} {', '.join(str(run.facts.seed) for run in runs)}"


def how_it_was_run(comparison: Comparison) -> str:
    """Return the length, the images, and the machines of the compared runs."""
    all_runs = [run for runs in comparison.runs.values() for run in runs]
    data, each, same = all_runs[0].facts.dataset, "each " * (len(all_runs) > 1), "the same " * (len(all_runs) > 1)
    steps, full_steps = comparison.steps or 0, comparison.full_steps
    length = f"{each}with the paper's recipe for {budget(steps, full_steps)}"
    sentences = [f"{length} on {same}{data.images:,} images of {data.name}."]
    if full_steps is not None and steps < full_steps:
        sentences.append("The runs are shortened; their schedule keeps the recipe's shape.")
    if len(all_runs) > 1:
        sentences.append("Runs of one seed see the same images in the same order.")
    machines = sorted(
        {f"{run.facts.hardware.get('processor')} in {run.facts.hardware.get('precision')}" for run in all_runs}
    )
    return " ".join([*sentences, f"Computed on {' and on '.join(machines)}."])


def missing_networks(comparison: Comparison, has: Iterable[str]) -> dict[str, str]:
    """Return the commands of those of the four networks that are not in `has`."""
    absent = [network for network in numbers.THE_FOUR if network not in set(has)]
    return {display(network): command(network, comparison) for network in absent}


def command(network: str, like: Comparison, shortcut: str | None = None) -> str:
    """Return what makes a run that can be compared with those that are there."""
    name = f"paper-{network}"
    length = f" --steps {like.steps}" if like.steps and like.steps != like.full_steps else ""
    choice = f" --set shortcut={shortcut}" if shortcut else ""
    folder = f"training/results/{name}" + (f"-{shortcut.lower()}" if shortcut else "")
    return f"train-resnet run --recipe {name}{choice}{length} {DATA} --out {folder}"
