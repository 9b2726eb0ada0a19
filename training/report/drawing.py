"""Drawing with matplotlib, as SVG that lives inside the page: it takes the page's colours and fonts.

Matplotlib draws with placeholder colours, which are then replaced by the page's variables, so that one drawing suits a
light and a dark page. The same numbers give the same bytes.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.report.numbers import dashed

INK, LINE = "#010101", "#020202"
SERIES = tuple(f"#0{number}0304" for number in range(1, 7))
_PAGE_COLOURS = {INK: "currentColor", LINE: "var(--line)"} | {
    colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)
}
_DEPTH_COLOURS = {20: SERIES[0], 32: SERIES[2], 44: SERIES[3], 56: SERIES[1], 110: SERIES[4]}
_POINTS_AN_INCH = 72
PANEL_SIZE = (4.7, 3.3)  # inches
_SETTINGS: Any = {
    "svg.fonttype": "none",  # text stays text: it can be selected, searched, and read aloud
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
}


@dataclass(frozen=True, slots=True)
class Panel:
    """One drawing, what it shows in words, and the rectangle of its axes in the drawing's coordinates."""

    svg: str
    label: str
    frame: tuple[float, float, float, float] = (0, 0, 0, 0)  # left, top, right, bottom


def display(network: str) -> str:
    """Return the paper's spelling: plain-56, ResNet-56, VGG-19."""
    return cased(dashed(network))


def cased(name: str) -> str:
    """Return ResNet-56 for resnet-56."""
    return name.replace("resnet", "ResNet").replace("vgg", "VGG")


def depth_of(network: str) -> int:
    """Return 56 for resnet56 and for plain-56."""
    return int(dashed(network.replace("-", "")).split("-")[1])


def depth_colour(network: str) -> str:
    """Return the colour of a network's depth, the same in all figures."""
    return _DEPTH_COLOURS.get(depth_of(network), SERIES[5])


def draw(name: str, label: str, paint: Callable[[Axes], None], size: tuple[float, float] = PANEL_SIZE) -> Panel:
    """Return a panel; `name` keeps its identifiers apart from those of the other drawings on the page."""
    file = io.StringIO()
    with mpl.rc_context(_SETTINGS | {"svg.hashsalt": name}):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        paint(axes)
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
        box = axes.get_position()
    width, height = (_POINTS_AN_INCH * side for side in size)
    frame = (box.x0 * width, (1 - box.y1) * height, box.x1 * width, (1 - box.y0) * height)
    return Panel(_for_the_page(file.getvalue(), name, label), label, frame)


def _for_the_page(svg: str, name: str, label: str) -> str:
    svg = svg[svg.index("<svg") :].replace("xlink:href", "href")
    svg = (
        re.sub(r'\s(xmlns(:\w+)?|version|width|height)="[^"]*"', "", svg.split(">", 1)[0]) + ">" + svg.split(">", 1)[1]
    )
    svg = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    for colour, replacement in _PAGE_COLOURS.items():
        svg = svg.replace(colour, replacement)
    svg = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", svg)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1).rstrip()
