"""Final errors as figures: beside the paper's table 6, of the shortcuts, and against multiply-adds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from training.networks.cost import CIFAR_DEPTHS
from training.recipes.catalog import RECIPES
from training.report import numbers
from training.report.content import Figure, Table
from training.report.drawing import INK, SERIES, Panel, cased, display, draw
from training.report.figures import cost_bars
from training.report.noise import Interval, errors_in_test, interval
from training.report.numbers import Comparison
from training.report.paper_figures import PUBLISHED
from training.report.runs import Run
from training.report.tables import budget

_ROWS = ("plain20", "plain56", *(f"resnet{depth}" for depth in CIFAR_DEPTHS))
_OURS, _PAPER, _OTHERS, _OTHER_RECIPE = "paper's recipe, here", "the paper", "published by others", "other recipe, here"
_STYLES: dict[str, Any] = {
    _OURS: {"color": SERIES[0], "marker": "o", "markersize": 6},
    _OTHER_RECIPE: {"color": SERIES[2], "marker": "s", "markersize": 5},
    _PAPER: {"color": SERIES[1], "marker": "D", "markersize": 6, "markerfacecolor": "none"},
    _OTHERS: {"color": SERIES[5], "marker": "x", "markersize": 5},
}
_OFFSETS = {_OURS: 0.0, _OTHER_RECIPE: 0.22, _PAPER: -0.22, _OTHERS: -0.22}  # rows
_NO_BAR = 0.0
_PARAMETERS_A_POINT, _CIFAR_PARAMETERS_A_POINT = 400_000, 20_000  # of a disc's area, in square points


@dataclass(frozen=True, slots=True)
class _Mark:
    """One error in the forest plot."""

    network: str
    source: str
    error: float
    half_width: float
    detail: str


def forest(finished: Sequence[Run], finding: str) -> Figure:
    """Draw the test errors of the CIFAR-10 networks beside those of the paper's table 6 and of others."""
    marks = [*_own_marks(finished), *_paper_marks(), *_published_marks()]
    networks = [name for name in _ROWS if any(mark.network == name for mark in marks)]

    def paint(axes: Axes) -> None:
        for source, style in _STYLES.items():
            chosen = [mark for mark in marks if mark.source == source]
            heights = [networks.index(mark.network) + _OFFSETS[source] for mark in chosen]
            errors, bars = [mark.error for mark in chosen], [mark.half_width for mark in chosen]
            if chosen:
                axes.errorbar(errors, heights, xerr=bars, linestyle="none", capsize=2, lw=1, label=source, **style)
        for mark in marks:
            if mark.source == _OURS:
                place = mark.error + mark.half_width, networks.index(mark.network)
                axes.annotate(mark.detail, place, (5, 0), textcoords="offset points", fontsize=8, va="center")
        axes.set_yticks(range(len(networks)), [display(name) for name in networks])
        axes.set(xlabel="test error on CIFAR-10, %")
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.legend(fontsize=8, loc="lower right")

    reading = (
        "Bars: two standard deviations over seeds where there are several, else the 95% binomial interval of 10,000 "
        "test images. The paper's ResNet-110 is the best of five runs (mean 6.61 ± 0.16). Shorter runs are not "
        "comparable with the paper's numbers, nor with each other where their lengths differ."
    )
    rows = [
        (display(mark.network), mark.source, f"{mark.error:.2f}", f"{mark.half_width:.2f}", mark.detail)
        for mark in marks
    ]
    header = ("network", "source", "test error", "half-width", "how")
    panel = draw("forest", "Test errors beside the paper's table 6", paint, (8.6, 4.2))
    return Figure("table-6", finding, reading, [panel], Table(header, rows), layout="wide")


def _own_marks(finished: Iterable[Run]) -> list[_Mark]:
    """Return the longest runs of each network with the paper's recipe, and the best with another one."""
    found: dict[tuple[str, str], dict[int, list[Run]]] = {}
    for run in finished:
        usual = run.is_of_the_papers_data and run.facts.network in _ROWS and run.facts.shortcut in (None, "A")
        if usual and errors_in_test(run) is not None and not run.changed_fields:
            source = _OURS if run.is_of_the_papers_recipe else _OTHER_RECIPE
            found.setdefault((run.facts.network, source), {}).setdefault(run.facts.steps, []).append(run)
    marks = []
    for (network, source), lengths in found.items():
        runs = numbers.one_of_each_seed(lengths[max(lengths)])
        if measured := interval(runs, errors_in_test):
            marks.append(_own_mark(network, source, runs, measured))
    return marks


def _own_mark(network: str, source: str, runs: Sequence[Run], measured: Interval) -> _Mark:
    seeds = f"{len(runs)} seeds" if len(runs) > 1 else "1 seed"
    how = budget(runs[0].facts.steps, runs[0].full_steps) if source == _OURS else runs[0].recipe_name
    return _Mark(network, source, measured.mean, measured.half_width, f"{how}, {seeds}")


def _paper_marks() -> list[_Mark]:
    return [
        _Mark(name, _PAPER, error, _NO_BAR, "table 6")
        for name in _ROWS
        if (error := RECIPES[f"paper-{name}"].expected_error) is not None
    ]


def _published_marks() -> list[_Mark]:
    rows = [(row, row.network.replace("-", "")) for row in PUBLISHED]
    return [
        _Mark(name, _OTHERS, row.test_error, _NO_BAR, f"{row.source}: {row.how}") for row, name in rows if name in _ROWS
    ]


def shortcut_errors(comparison: Comparison, finding: str) -> Figure:
    """Draw the test errors of the three shortcuts with their noise."""
    found = {kind: interval(comparison.runs.get(kind, []), errors_in_test) for kind in numbers.SHORTCUTS}
    measured = {kind: value for kind, value in found.items() if value is not None}

    def paint(axes: Axes) -> None:
        for number, value in enumerate(measured.values()):
            axes.errorbar(value.mean, number, xerr=value.half_width, color=SERIES[0], marker="o", capsize=3)
        axes.set_yticks(range(len(measured)), [f"{kind} ({_seeds(value.count)})" for kind, value in measured.items()])
        axes.set(xlabel="test error, %", title=display(numbers.SHORTCUT_NETWORK), ylim=(len(measured) - 0.5, -0.5))

    rows = [
        (kind, f"{value.mean:.2f}", f"{value.half_width:.2f}", str(value.count), value.source)
        for kind, value in measured.items()
    ]
    table = Table(("shortcut", "test error", "half-width", "seeds", "half-width is"), rows)
    reading = f"Bars: {'; '.join(dict.fromkeys(value.source for value in measured.values()))}."
    panel = draw("shortcut-errors", "Test errors of the shortcuts A, B and C", paint, (4.7, 2.2))
    return Figure("shortcuts", finding, reading, [panel], table)


def _seeds(count: int) -> str:
    return f"{count} seeds" if count > 1 else "1 seed"


def costs(comparison: Comparison, rows: Sequence[Mapping[str, Any]], finding: str) -> Figure:
    """Draw multiply-adds beside VGG's, and errors against multiply-adds on ImageNet and on CIFAR-10."""
    series = _cifar_series(comparison)
    panels = [cost_bars(rows), _imagenet_scatter(rows), _cifar_scatter(series)]
    reading = (
        "First: counted on the networks as the paper describes them (224×224 pixels, 1000 classes). Second: the "
        "paper's top-1 errors on ImageNet, ten crops. Third: test errors on CIFAR-10, here and in the paper. The "
        "area of a disc is the number of parameters."
    )
    header = ("network", "data", "source", "multiply-adds", "parameters", "error, %")
    table = [
        (_name(row), "ImageNet", "the paper", str(row["multiply_adds"]), str(row["parameters"]), _text(row))
        for row in rows
    ]
    for source, points in series.items():
        table += [(name, "CIFAR-10", source, str(adds), str(size), f"{e:.2f}") for name, adds, size, e in points]
    return Figure("costs", finding, reading, panels, Table(header, table))


def _name(row: Mapping[str, Any]) -> str:
    return f"{cased(row['network'])} {row['shortcut'] or ''}".strip()


def _text(row: Mapping[str, Any]) -> str:
    return "" if row["paper_top1_error"] is None else f"{row['paper_top1_error']:.2f}"


def _imagenet_scatter(rows: Sequence[Mapping[str, Any]]) -> Panel:
    known = [row for row in rows if row["paper_top1_error"] is not None]

    def paint(axes: Axes) -> None:
        for row in known:
            place, is_vgg = (row["multiply_adds"] / 1e9, row["paper_top1_error"]), row["network"].startswith("vgg")
            colour = SERIES[1] if is_vgg else SERIES[0]
            axes.scatter(*place, s=row["parameters"] / _PARAMETERS_A_POINT, color=colour, alpha=0.6)
            offset, side = ((-12, 0), "right") if is_vgg else ((9, 0), "left")
            axes.annotate(_name(row), place, offset, textcoords="offset points", fontsize=8, ha=side, va="center")
        axes.set(xlabel="multiply-adds of one image, billions", ylabel="top-1 error, %", title="ImageNet, the paper")
        axes.margins(0.15)

    return draw("costs-imagenet", "The paper's ImageNet errors against multiply-adds", paint)


_Points = list[tuple[str, int, int, float]]  # network, multiply-adds, parameters, error


def _cifar_series(comparison: Comparison) -> dict[str, _Points]:
    here: dict[str, _Points] = {"plain, here": [], "residual, here": [], "residual, the paper": []}
    for network, runs in comparison.runs.items():
        if measured := interval(runs, errors_in_test):
            family = "plain, here" if network.startswith("plain") else "residual, here"
            here[family].append(_point(network, measured.mean))
    here["residual, the paper"] = [_point(mark.network, mark.error) for mark in _paper_marks()]
    return {source: sorted(points, key=lambda point: point[1]) for source, points in here.items() if points}


def _point(network: str, error: float) -> tuple[str, int, int, float]:
    cost = numbers.cost_of_network(network)
    return display(network), cost.multiply_adds, cost.parameters, error


def _cifar_scatter(series: Mapping[str, _Points]) -> Panel:
    colours = {"plain, here": SERIES[1], "residual, here": SERIES[0], "residual, the paper": INK}

    def paint(axes: Axes) -> None:
        for source, points in series.items():
            style = "--" if "paper" in source else "-"
            millions, errors = [adds / 1e6 for _, adds, _, _ in points], [error for *_, error in points]
            axes.plot(millions, errors, color=colours[source], linestyle=style, linewidth=0.8, label=source)
            areas = [size / _CIFAR_PARAMETERS_A_POINT for _, _, size, _ in points]
            axes.scatter(millions, errors, s=areas, color=colours[source], alpha=0.6)
        axes.set(xlabel="multiply-adds of one image, millions", ylabel="test error, %", title="CIFAR-10", xscale="log")
        axes.set_xticks([40, 100, 250, 1000, 2800], ["40", "100", "250", "1,000", "2,800"], minor=False)
        axes.minorticks_off()
        axes.legend(fontsize=8)

    return draw("costs-cifar", "CIFAR-10 errors against multiply-adds", paint)
