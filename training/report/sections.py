"""The parts of the report: what was run with which budget, and what it shows.

Headings and texts describe the measurements. Findings are computed from the runs, so they state what these show and not
what the paper found. Missing runs are listed, with the command that makes them.
"""

from training.report import curves, diagrams, error_plots, figures, findings, layer_numbers, maps, numbers, tables
from training.report.content import Section
from training.report.drawing import display
from training.report.initial_signals import InitialSignals
from training.report.numbers import Comparison, Summary
from training.report.run_descriptions import (
    SIGNALS_COMMAND,
    SURFACE_COMMAND,
    SURFACE_NETWORKS,
    command,
    how_it_was_run,
    missing_networks,
    seeds_of,
    what_was_run,
)
from training.report.runs import Run
from training.report.surfaces import LossSurface


def sections(runs: list[Run], signals: InitialSignals | None, surfaces: dict[str, LossSurface]) -> list[Section]:
    """Return all parts, also those that there are no runs for."""
    finished = [run for run in runs if run.results]
    comparison, summaries = numbers.comparable(finished), numbers.summaries(finished)
    return [
        _degradation(comparison, summaries),
        _errors(finished, summaries, comparison),
        _responses(comparison),
        _shortcuts(numbers.comparable_shortcuts(finished), comparison),
        _costs(comparison),
        _gradients(comparison, signals),
        _loss_surfaces(surfaces),
        _every_run(runs, comparison),
    ]


def _degradation(comparison: Comparison, summaries: list[Summary]) -> Section:
    part = Section("a", "Degradation: what depth does to plain and to residual networks")
    part.missing.update(missing_networks(comparison, comparison.runs))
    if not comparison.runs:
        return part
    part.content.append(curves.main_curves(comparison, findings.degradation(comparison)))
    part.content.append(diagrams.plain_and_residual())
    part.content.append(what_was_run(comparison))
    if numbers.differences(comparison):
        part.content.append(tables.differences(comparison))
    part.content.append(findings.noise(comparison, summaries))
    part.content.extend([*findings.overfitting(comparison), tables.gaps(comparison)])
    return part


def _errors(finished: list[Run], summaries: list[Summary], comparison: Comparison) -> Section:
    part = Section("b", "Final errors, beside the paper's and what others have published")
    part.missing.update(missing_networks(comparison, comparison.runs))
    if not summaries:
        return part
    part.content.append(error_plots.forest(finished, findings.beside_the_paper(summaries)))
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
    responses = layer_numbers.responses(comparison)
    part.missing.update(missing_networks(comparison, responses))
    if responses:
        part.content.append(figures.response_curves(responses, findings.weaker_responses(responses)))
        part.content.append(
            "The paper finds residual networks to respond more weakly than plain ones, and the more weakly the deeper "
            "they are."
        )
        part.content.append(what_was_run(comparison, responses))
        part.content.append(tables.responses(responses))
    return part


def _shortcuts(comparison: Comparison, four: Comparison) -> Section:
    part = Section("d", "Shortcuts A, B and C: what they cost and what they bring")
    like = comparison if comparison.runs else four
    for kind in numbers.SHORTCUTS:
        if kind not in comparison.runs:
            what = f"{display(numbers.SHORTCUT_NETWORK)} {kind}"
            part.missing[what] = command(numbers.SHORTCUT_NETWORK, like, None if kind == "A" else kind)
    part.content.append(
        "A: zeros for new channels, no parameters. B: 1×1 convolutions where the shape changes. C: 1×1 convolutions "
        "everywhere. Parameters and multiply-adds are counted here, not taken from the paper. The paper's errors are "
        "of CIFAR-10 for ResNet-20 (which it has with A only), of ImageNet with ten crops for ResNet-34."
    )
    part.content.append(diagrams.shortcut_blocks())
    if comparison.runs:
        part.content.append(error_plots.shortcut_errors(comparison, findings.shortcuts(comparison)))
        kinds = ", ".join(f"{kind} ({seeds_of(runs)})" for kind, runs in comparison.runs.items())
        part.content.append(f"Run: ResNet-20 with {kinds}, {how_it_was_run(comparison)}")
    part.content.append(tables.shortcuts(comparison))
    return part


def _costs(comparison: Comparison) -> Section:
    rows = numbers.costs()
    part = Section("e", "Costs against VGG-19")
    part.content.append(error_plots.costs(comparison, rows, findings.cost(rows)))
    part.content.append(
        "Convolutions and linear layers are counted, a bottleneck's stride is in its first 1×1. Nothing is trained for "
        "the table; its errors are the paper's (ImageNet, ten crops)."
    )
    part.content.append(tables.costs(rows))
    part.content.extend([diagrams.strips(), diagrams.bottleneck()])
    return part


def _gradients(comparison: Comparison, signals: InitialSignals | None) -> Section:
    part = Section("f", "Is it vanishing gradients?")
    relative = layer_numbers.relative_gradients(comparison)
    part.missing.update(missing_networks(comparison, relative))
    if relative:
        part.content.append(maps.gradients(relative, findings.vanishing(relative)))
        part.content.append(what_was_run(comparison, relative))
        part.content.append(tables.gradients(relative))
    if signals is not None:
        part.content.append(maps.initial_signals(signals, findings.initial_signals(signals)))
    else:
        part.content.append(f"Signals before any training are not measured; this measures them: {SIGNALS_COMMAND}")
    return part


def _loss_surfaces(surfaces: dict[str, LossSurface]) -> Section:
    part = Section("g", "Loss surfaces")
    if surfaces:
        part.content.append(maps.loss_surfaces(surfaces, findings.loss_surfaces(surfaces)))
    measured = {surface.network for surface in surfaces.values()}
    if absent := [network for network in SURFACE_NETWORKS if network not in measured]:
        part.content.append(
            f"Not measured: {', '.join(map(display, absent))}. Surfaces of "
            "networks with shortcuts do not show what shortcuts change. A surface needs the weights of a run, and the "
            f"runs of the comparison are archived without them. For a run with weights this measures one: "
            f"{SURFACE_COMMAND}"
        )
    return part


def _every_run(runs: list[Run], comparison: Comparison) -> Section:
    part = Section("h", "All other runs")
    compared = {run.name for several in comparison.runs.values() for run in several}
    others = [run for run in runs if run.name not in compared and run.curve]
    if others:
        part.content.append(curves.run_curves(others, findings.other_runs(others)))
    else:
        part.content.append("There are no other runs.")
    return part
