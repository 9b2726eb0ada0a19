"""The six parts of the report: what was run with which budget, and what it shows.

Headings and texts describe the measurements. Findings are computed from the runs, so they state what these show and not
what the paper found. Missing runs are listed, with the command that makes them.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from training.report import figures, findings, numbers, tables
from training.report.figures import Panel, display
from training.report.numbers import Comparison, Summary
from training.report.runs import Run
from training.report.tables import Table, budget

_DATA = "--data cifar10-train.tar --test-data cifar10-test.tar"


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report: paragraphs, tables, rows of figures; and runs that it lacks, with the command of each."""

    letter: str
    title: str
    content: list[str | Table | list[Panel]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)


def sections(finished: list[Run]) -> list[Section]:
    """Return all six parts, also those that there are no runs for."""
    comparison, summaries = numbers.comparable(finished), numbers.summaries(finished)
    return [
        _degradation(comparison, summaries),
        _errors(summaries, comparison),
        _responses(comparison),
        _shortcuts(numbers.comparable_shortcuts(finished), comparison),
        _costs(),
        _gradients(comparison),
    ]


def _degradation(comparison: Comparison, summaries: list[Summary]) -> Section:
    part = Section("a", "Degradation: what depth does to plain and to residual networks")
    part.missing.update(_missing_networks(comparison, comparison.runs))
    if not comparison.runs:
        return part
    families = [name for name in ("plain", "resnet") if any(run.startswith(name) for run in comparison.runs)]
    part.content.append(_what_was_run(comparison))
    part.content.append([figures.error_curves(comparison.runs, family) for family in families])
    part.content.append(
        "Solid: test error. Dashed: training error of augmented images, epoch by epoch, while the weights changed. "
        "Dots, and the numbers below: training error of the final weights, in evaluation mode, over the whole training "
        "set without augmentation."
    )
    if numbers.differences(comparison):
        part.content.extend([*findings.degradation(comparison), tables.differences(comparison)])
    part.content.append(findings.noise(comparison, summaries))
    return part


def _errors(summaries: list[Summary], comparison: Comparison) -> Section:
    part = Section("b", "Final errors, beside the paper's and what others have published")
    part.missing.update(_missing_networks(comparison, comparison.runs))
    if not summaries:
        return part
    part.content.append(
        "Errors in percent, of the final weights; mean ± standard deviation where there are several seeds. Only a row "
        "of the paper's recipe at full length can be held against the paper's number; the others show what a smaller "
        "budget, or another recipe, gives. Of plain networks on CIFAR-10 the paper has curves only (figure 6)."
    )
    part.content.append(tables.errors(summaries))
    if published := list(dict.fromkeys(row for summary in summaries for row in summary.published)):
        part.content.extend(["Published by others, at full length:", tables.published(published)])
    return part


def _responses(comparison: Comparison) -> Section:
    part = Section("c", "Layer responses: how near to zero the residual functions stay")
    responses = numbers.responses(comparison)
    part.missing.update(_missing_networks(comparison, responses))
    if responses:
        part.content.append(_what_was_run(comparison, responses))
        part.content.append(figures.response_curves(responses))
        part.content.append(
            "The standard deviation of each 3×3 layer's output after batch norm, before the activation or the "
            "addition (the paper's figure 7), with the final weights of the first seed. The paper finds residual "
            "networks to respond more weakly than plain ones, and the more weakly the deeper they are."
        )
        part.content.extend([*findings.weaker_responses(responses), tables.responses(responses)])
    return part


def _shortcuts(comparison: Comparison, four: Comparison) -> Section:
    part = Section("d", "Shortcuts A, B and C: what they cost and what they bring")
    like = comparison if comparison.runs else four
    for kind in numbers.SHORTCUTS:
        if kind not in comparison.runs:
            what = f"{display(numbers.SHORTCUT_NETWORK)} {kind}"
            part.missing[what] = _command(numbers.SHORTCUT_NETWORK, like, None if kind == "A" else kind)
    part.content.append(
        "A: zeros for new channels, no parameters. B: 1×1 convolutions where the shape changes. C: 1×1 convolutions "
        "everywhere. Parameters and multiply-adds are counted here, not taken from the paper. The paper's errors are "
        "of CIFAR-10 for ResNet-20 (which it has with A only), of ImageNet with ten crops for ResNet-34."
    )
    if comparison.runs:
        kinds = ", ".join(f"{kind} ({_seeds(runs)})" for kind, runs in comparison.runs.items())
        part.content.append(f"Run: ResNet-20 with {kinds}, {_how_it_was_run(comparison)}")
    part.content.append(tables.shortcuts(comparison))
    return part


def _costs() -> Section:
    rows = numbers.costs()
    text = (
        "Counted on the networks as the paper describes them (224×224 pixels, 1000 classes, a bottleneck's stride in "
        "its first 1×1); convolutions and linear layers. Nothing is trained for this part; the errors are the paper's "
        "(ImageNet, ten crops)."
    )
    return Section("e", "Costs against VGG-19", [text, [figures.cost_bars(rows)], tables.costs(rows)])


def _gradients(comparison: Comparison) -> Section:
    part = Section("f", "Is it vanishing gradients, or overfitting?")
    gradients = numbers.gradients(comparison)
    part.missing.update(_missing_networks(comparison, gradients))
    if not gradients:
        return part
    highest = max(value for moments in gradients.values() for norms in moments.values() for value in norms)
    lowest = min(value for moments in gradients.values() for norms in moments.values() for value in norms)
    part.content.append(_what_was_run(comparison, gradients))
    part.content.append(
        "The norm of the gradient of each convolution's weights, of one batch at the first, the middle and the last "
        "step of the first seed. If vanishing gradients were the cause, those of the first layers would be smaller "
        "than those of the last by orders of magnitude, the more so the deeper the plain network."
    )
    part.content.append(
        [figures.gradient_curves(network, moments, (lowest, highest)) for network, moments in gradients.items()]
    )
    part.content.extend([*findings.vanishing(gradients), tables.gradients(gradients)])
    part.content.append(
        "If overfitting were the cause, the deep plain network would have a low training error and a wide gap:"
    )
    part.content.extend([*findings.overfitting(comparison), tables.gaps(comparison)])
    return part


def _what_was_run(comparison: Comparison, has: Iterable[str] | None = None) -> str:
    """Return in a few sentences networks, seeds, budget, images and machine; `has`: of some of the networks only."""
    there = list(comparison.runs if has is None else has)
    names = [f"{display(network)} ({_seeds(comparison.runs[network])})" for network in there]
    absent = [display(network) for network in numbers.THE_FOUR if network not in there]
    not_run = f" Not run yet: {', '.join(absent)}." if absent else ""
    return f"Run: {', '.join(names)}, {_how_it_was_run(comparison)}{not_run}"


def _seeds(runs: list[Run]) -> str:
    return f"seed{'s' if len(runs) > 1 else ''} {', '.join(str(run.facts.seed) for run in runs)}"


def _how_it_was_run(comparison: Comparison) -> str:
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


def _missing_networks(comparison: Comparison, has: Iterable[str]) -> dict[str, str]:
    absent = [network for network in numbers.THE_FOUR if network not in set(has)]
    return {display(network): _command(network, comparison) for network in absent}


def _command(network: str, like: Comparison, shortcut: str | None = None) -> str:
    """Return what makes a run that can be compared with those that are there."""
    name = f"paper-{network}"
    length = f" --steps {like.steps}" if like.steps and like.steps != like.full_steps else ""
    choice = f" --set shortcut={shortcut}" if shortcut else ""
    folder = f"training/results/{name}" + (f"-{shortcut.lower()}" if shortcut else "")
    return f"train-resnet run --recipe {name}{choice}{length} {_DATA} --out {folder}"
