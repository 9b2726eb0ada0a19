"""The figures, as SVG that lives inside the page: it takes the page's colours and fonts and refers to nothing outside.

Matplotlib draws with placeholder colours, which are then replaced by the page's variables, so that one drawing suits a
light and a dark page. The same numbers give the same bytes.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from training.report.numbers import dashed
from training.report.runs import Run

_INK, _GRID = "#010101", "#020202"
_SERIES = tuple(f"#0{number}0304" for number in range(1, 7))
_PAGE_COLOURS = {_INK: "currentColor", _GRID: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(_SERIES, start=1)
}
_DEPTH_COLOURS = {20: _SERIES[0], 32: _SERIES[2], 44: _SERIES[3], 56: _SERIES[1], 110: _SERIES[4]}
_USUAL_ERROR = 60  # percent; what the first epochs have above it would flatten the rest
_ROOM_FOR_A_LEGEND = 1.2  # of the highest value
_SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text: it can be selected, searched, and read aloud
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing and what it shows, in words."""

    svg: str
    caption: str


def display(network: str) -> str:
    """Return the paper's spelling: plain-56, ResNet-56, VGG-19."""
    return cased(dashed(network))


def cased(name: str) -> str:
    """Return ResNet-56 for resnet-56."""
    return name.replace("resnet", "ResNet").replace("vgg", "VGG")


def _draw(name: str, caption: str, paint: Callable[[Axes], None]) -> Panel:
    """Return a panel; `name` keeps its identifiers apart from those of the other drawings on the page."""
    file = io.StringIO()
    with mpl.rc_context(_SETTINGS | {"svg.hashsalt": name}):
        figure = Figure(figsize=(4.7, 3.3), layout="constrained")
        paint(figure.add_subplot())
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    return Panel(_for_the_page(file.getvalue(), name, caption), caption)


def _for_the_page(svg: str, name: str, caption: str) -> str:
    svg = svg[svg.index("<svg") :].replace("xlink:href", "href")
    svg = (
        re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", svg.split(">", 1)[0]) + ">" + svg.split(">", 1)[1]
    )
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, replacement in _PAGE_COLOURS.items():
        svg = svg.replace(colour, replacement)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1).rstrip()


def error_curves(runs: Mapping[str, Sequence[Run]], family: str) -> Panel:
    """Draw training (dashed) and test error (solid) of one family against steps, as in the paper's figure 6."""

    def paint(axes: Axes) -> None:
        for network in sorted(runs, key=lambda name: (len(name), name)):
            for number, run in enumerate(runs[network] if network.startswith(family) else ()):
                colour, label = _depth_colour(network), display(network) if number == 0 else "_"
                tested = [point for point in run.curve if point.test_error is not None]
                train = [point.step for point in run.curve], [point.train_error for point in run.curve]
                test = [point.step for point in tested], [point.test_error or 0.0 for point in tested]
                axes.plot(*train, color=colour, linestyle=(0, (3, 2)), linewidth=1.0, label=f"{label} training")
                axes.plot(*test, color=colour, linewidth=1.8, label=f"{label} test")
                if run.results and run.results.train:
                    axes.plot(run.facts.steps, run.results.train.top1, color=colour, marker="o", markersize=4)
        axes.set(xlabel="steps", ylabel="error, %", ylim=(0, _highest_error(runs)), title=f"{_family(family)} networks")
        axes.xaxis.set_major_formatter(lambda steps, _: f"{steps:,.0f}")
        axes.legend()

    return _draw(f"curves-{family}", f"Training and test error of the {_family(family)} networks against steps", paint)


def _highest_error(runs: Mapping[str, Sequence[Run]]) -> float:
    """Return the top of the axis, the same for both families: everything but the worst of the first epochs."""
    last = [run.curve[-1].train_error for several in runs.values() for run in several if run.curve]
    return 100 if max(last, default=0) > _USUAL_ERROR - 5 else _USUAL_ERROR


def _family(family: str) -> str:
    return {"plain": "plain", "resnet": "residual"}[family]


def _depth_colour(network: str) -> str:
    return _DEPTH_COLOURS.get(int(dashed(network).split("-")[1]), _SERIES[5])


def response_curves(responses: Mapping[str, Sequence[float]]) -> list[Panel]:
    """Draw the paper's figure 7: by layer, and sorted by size. Plain nets dotted, residual ones solid."""

    def painter(*, ordered: bool) -> Callable[[Axes], None]:
        def paint(axes: Axes) -> None:
            for network, values in responses.items():
                heights = sorted(values, reverse=True) if ordered else values
                style = (0, (1, 1.2)) if network.startswith("plain") else "-"
                layers = range(1, len(values) + 1)
                axes.plot(layers, heights, color=_depth_colour(network), linestyle=style, label=display(network))
            axes.set(xlabel="layer, by size of response" if ordered else "layer", ylabel="standard deviation")
            axes.set_ylim(0, axes.get_ylim()[1] * _ROOM_FOR_A_LEGEND)
            axes.legend(loc="upper center", ncols=3)

        return paint

    return [
        _draw("responses", "Standard deviations of layer responses, by layer", painter(ordered=False)),
        _draw("responses-sorted", "The same, sorted by size", painter(ordered=True)),
    ]


def gradient_curves(network: str, gradients: Mapping[int, Sequence[float]], limits: tuple[float, float]) -> Panel:
    """Draw the norm of each layer's gradient at the moments at which a run logs it; `limits` are of all networks."""

    def paint(axes: Axes) -> None:
        for colour, (step, norms) in zip(_SERIES, gradients.items(), strict=False):
            axes.plot(range(1, len(norms) + 1), norms, color=colour, marker=".", markersize=4, label=f"step {step:,}")
        axes.set(xlabel="layer", ylabel="norm of gradient", title=display(network), yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(max(limits[0], limits[1] / 1e6) / 1.5, limits[1] * 3)
        axes.legend(loc="upper center", ncols=3)

    return _draw(f"gradients-{network}", f"Gradient norms of each layer of {display(network)}", paint)


def cost_bars(costs: Sequence[Mapping[str, object]]) -> Panel:
    """Draw the multiply-adds of one image, in billions."""
    names = [f"{cased(str(cost['network']))} {cost['shortcut'] or ''}".strip() for cost in costs]
    billions = [float(str(cost["multiply_adds"])) / 1e9 for cost in costs]

    def paint(axes: Axes) -> None:
        colours = [_SERIES[1] if name.startswith("VGG") else _SERIES[0] for name in names]
        bars = axes.barh(names, billions, color=colours)
        axes.bar_label(bars, [f"{value:.1f}" for value in billions], padding=3)
        axes.set(xlabel="multiply-adds of one image, billions", xlim=(0, max(billions) * 1.12))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")

    return _draw("costs", "Multiply-adds of one image, in billions", paint)
