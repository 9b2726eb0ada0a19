"""Learning curves: the main figure of the report, and small ones of all other runs."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from training.report.content import Figure, Table
from training.report.drawing import INK, SERIES, Panel, depth_colour, depth_of, display, draw
from training.report.numbers import Comparison
from training.report.runs import Point, Run

_USUAL_ERROR = 60  # percent; what the first epochs have above it would flatten the rest
_FAMILIES = {"plain": "plain", "resnet": "residual"}
_TRAIN_STYLE = (0, (3, 2))
_SMALL = (3.4, 2.5)  # inches
_KINDS = ("training", "held-out", "test")


def main_curves(comparison: Comparison, finding: str) -> Figure:
    """Draw the errors of the compared networks against steps, a panel for each family (the paper's figure 6)."""
    runs, top = comparison.runs, _highest_error(comparison.runs)
    families = [family for family in _FAMILIES if any(name.startswith(family) for name in runs)]
    chosen = {family: {name: runs[name] for name in runs if name.startswith(family)} for family in families}
    panels = [_family_panel(family, chosen[family], comparison.steps or 1, top) for family in families]
    drawn = [
        _script_panel(panel, family, chosen[family], comparison.steps or 1, top)
        for panel, family in zip(panels, families, strict=True)
    ]
    reading = (
        "Solid: test error. Dashed: training error of augmented images, epoch by epoch. Dots: training error of the "
        "final weights over the whole training set without augmentation. Vertical lines: divisions of the learning "
        "rate by ten. Horizontal dashes: the paper's final test error at full length; of plain networks it has curves "
        "only."
    )
    every = [run for several in runs.values() for run in several]
    return Figure("curves", finding, reading, panels, _table(every), script_data=json.dumps(drawn))


def _family_panel(family: str, runs: Mapping[str, Sequence[Run]], steps: int, top: float) -> Panel:
    def paint(axes: Axes) -> None:
        for network, several in runs.items():
            for number, run in enumerate(several):
                _add_run(axes, network, number, run)
            _add_paper(axes, several[0])
        axes.set(xlabel="steps", ylabel="error, %", xlim=(0, steps), ylim=(0, top))
        axes.set_title(f"{_FAMILIES[family]} networks")
        axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
        _add_rate_drops(axes, next(iter(runs.values()))[0])
        axes.legend(fontsize=8)

    label = f"Training and test error of the {_FAMILIES[family]} networks against steps"
    return draw(f"curves-{family}", label, paint)


def _add_run(axes: Axes, network: str, number: int, run: Run) -> None:
    colour, name = depth_colour(network), display(network) if number == 0 else "_"
    for kind, style, width in (("training", _TRAIN_STYLE, 1.0), ("test", "-", 1.8)):
        points = _points(run, kind)
        [line] = axes.plot(*_columns(points), color=colour, linestyle=style, linewidth=width, label=f"{name} {kind}")
        line.set_gid(_line_name(network, kind, number))
    if run.results and run.results.train:
        axes.plot(run.facts.steps, run.results.train.top1, color=colour, marker="o", markersize=4, clip_on=False)


def _add_paper(axes: Axes, run: Run) -> None:
    if run.paper_error is not None:
        label = f"paper's {display(run.facts.network)}: {run.paper_error:.2f}"
        axes.axhline(run.paper_error, color=depth_colour(run.facts.network), linestyle=(0, (6, 4)), lw=0.8, label=label)


def _add_rate_drops(axes: Axes, run: Run) -> None:
    for step in rate_drops(run):
        axes.axvline(step, color=INK, linewidth=0.6, linestyle=(0, (1, 2)))
        axes.annotate(
            "rate ÷ 10", (step, 1), xycoords=("data", "axes fraction"), rotation=90, fontsize=7, va="top", ha="right"
        )


def rate_drops(run: Run) -> list[int]:
    """Return the steps at which the recipe divides the learning rate by ten."""
    recipe = run.facts.recipe
    shares = recipe.get("milestones") or () if recipe.get("schedule") == "steps" else ()
    return [round(share * run.facts.steps) for share in shares]


def _line_name(network: str, kind: str, number: int) -> str:
    return f"line_{network}_{kind}_{number}"


def _points(run: Run, kind: str) -> list[tuple[int, float]]:
    values = {"training": _train, "held-out": _held_out, "test": _test}[kind]
    return [(point.step, value) for point in run.curve if (value := values(point)) is not None]


def _train(point: Point) -> float | None:
    return point.train_error


def _held_out(point: Point) -> float | None:
    return point.held_out_error


def _test(point: Point) -> float | None:
    return point.test_error


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [error for _, error in points]


def _highest_error(runs: Mapping[str, Sequence[Run]]) -> float:
    """Return the top of the axis, the same for both families: everything but the worst of the first epochs."""
    last = [run.curve[-1].train_error for several in runs.values() for run in several if run.curve]
    return 100 if max(last, default=0) > _USUAL_ERROR - 5 else _USUAL_ERROR


def _script_panel(
    panel: Panel, family: str, runs: Mapping[str, Sequence[Run]], steps: int, top: float
) -> dict[str, Any]:
    """Return what the page's script needs for choosing series and reading values."""
    series = [
        {
            "id": f"curves-{family}-{_line_name(network, kind, number)}",
            "network": display(network),
            "depth": depth_of(network),
            "family": _FAMILIES[family],
            "kind": kind,
            "seed": run.facts.seed,
            "points": [[step, round(error, 2)] for step, error in _points(run, kind)],
        }
        for network, several in runs.items()
        for number, run in enumerate(several)
        for kind in ("training", "test")
    ]
    frame = [round(value, 2) for value in panel.frame]
    return {"family": _FAMILIES[family], "frame": frame, "steps": steps, "top": top, "series": series}


def run_curves(runs: Iterable[Run], finding: str) -> Figure:
    """Draw a small panel with the curves of each run."""
    shown = [run for run in runs if run.curve]
    panels = [_run_panel(number, run) for number, run in enumerate(shown)]
    reading = "Dashed: training error of augmented images. Solid: test error. Dotted: error of held-out images."
    return Figure("runs", finding, reading, panels, _table(shown), layout="small")


def _run_panel(number: int, run: Run) -> Panel:
    styles = dict(zip(_KINDS, (_TRAIN_STYLE, (0, (1, 1.2)), "-"), strict=True))

    def paint(axes: Axes) -> None:
        for kind, colour in zip(_KINDS, (SERIES[0], SERIES[2], SERIES[1]), strict=True):
            if points := _points(run, kind):
                marker = "." if len(points) == 1 else ""
                axes.plot(*_columns(points), color=colour, linestyle=styles[kind], label=kind, marker=marker)
        axes.set(xlabel="steps", ylabel="error, %", ylim=(0, None))
        axes.set_title(_title(run), fontsize=9, parse_math=False)
        axes.xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.legend(fontsize=8)

    return draw(f"runs-{number}", f"Errors of the run {run.name} against steps", paint, _SMALL)


def _title(run: Run) -> str:
    state = "" if run.results else " (not finished)"
    return f"{run.name}{state}"


def _table(runs: Iterable[Run]) -> Table:
    """Return the points of curves: training errors of augmented images, and the other errors where measured."""
    header = ("run", "network", "seed", "step", "training error", "held-out error", "test error")
    rows = [
        (run.name, display(run.facts.network), str(run.facts.seed), str(point.step), *map(_text, _errors(point)))
        for run in runs
        for point in run.curve
    ]
    return Table(header, rows)


def _errors(point: Point) -> tuple[float | None, ...]:
    return point.train_error, point.held_out_error, point.test_error


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.5g}"
