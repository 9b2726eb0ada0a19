"""Maps in colour: gradients by layer and step, and loss surfaces; and the signals at initialization beside them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.ticker import MaxNLocator

from training.report.content import Figure, Table
from training.report.drawing import SERIES, Panel, display, draw
from training.report.initial_signals import InitialSignals
from training.report.surfaces import LossSurface

_COLOURS = "viridis"
_STRIP = (4.7, 1.9)  # inches
_SQUARE = (4.7, 3.9)
_LEVELS = 14
_Moments = Mapping[int, Sequence[float]]


def gradients(found: Mapping[str, _Moments], finding: str) -> Figure:
    """Draw gradients relative to weights by layer and step, a panel for each network, on one scale."""
    values = [value for moments in found.values() for norms in moments.values() for value in norms if value > 0]
    scale = LogNorm(min(values), max(values) * (1 + 1e-9))
    panels = [_gradient_map(network, moments, scale) for network, moments in found.items()]
    reading = (
        "The norm of the gradient of each convolution's weights, over the norm that these have at initialization; one "
        "batch at each step of the first seed. All panels have one logarithmic scale. Where gradients vanish, the left "
        "of a row is darker than its right by orders of magnitude."
    )
    rows = [
        (display(network), str(step), str(layer), f"{value:.4g}")
        for network, moments in found.items()
        for step, norms in moments.items()
        for layer, value in enumerate(norms, start=1)
    ]
    return Figure("gradients", finding, reading, panels, Table(("network", "step", "layer", "gradient"), rows))


def _gradient_map(network: str, moments: _Moments, scale: LogNorm) -> Panel:
    def paint(axes: Axes) -> None:
        layers = len(next(iter(moments.values())))
        edges = np.arange(layers + 1) + 0.5
        mesh = axes.pcolormesh(edges, np.arange(len(moments) + 1), list(moments.values()), norm=scale, cmap=_COLOURS)
        axes.set_yticks(np.arange(len(moments)) + 0.5, [f"step {step:,}" for step in moments])
        axes.set(xlabel="layer", title=display(network))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axes.invert_yaxis()
        axes.grid(visible=False)
        _add_scale(axes, mesh)

    return draw(f"gradients-{network}", f"Gradients of {display(network)} by layer and step", paint, _STRIP)


def _add_scale(axes: Axes, shown: Any, ticks: Sequence[float] | None = None) -> None:
    bar = axes.figure.colorbar(shown, ax=axes, ticks=ticks)
    bar.outline.set_visible(False)
    bar.ax.minorticks_off()


def initial_signals(signals: InitialSignals, finding: str) -> Figure:
    """Draw the forward and the backward signals of each setup by layer."""
    forward = _signal_panel("signals-forward", "forward: deviation of responses", signals, "response")
    backward = _signal_panel("signals-backward", "backward: norm of the loss gradient", signals, "backward")
    reading = (
        "Left: the standard deviation of each layer's response before the activation. Right: the norm of the loss "
        f"gradient with respect to it. Geometric means of {len(signals.seeds)} seeds, one batch of {signals.images} "
        f"images of {signals.dataset}, before any training. Networks without batch norm are the control."
    )
    rows = [
        (network.label, str(layer), *(f"{value:.4g}" for value in values))
        for network in signals.networks
        for layer, values in enumerate(
            zip(network.response, network.backward, network.gradient_over_weight, strict=True), start=1
        )
    ]
    header = ("network", "layer", "response", "backward", "gradient over weights")
    return Figure("initial-signals", finding, reading, [forward, backward], Table(header, rows))


def _signal_panel(name: str, title: str, signals: InitialSignals, field: str) -> Panel:
    def paint(axes: Axes) -> None:
        for colour, network in zip(SERIES, signals.networks, strict=False):
            values = getattr(network, field)
            axes.plot(range(1, len(values) + 1), values, color=colour, label=network.label)
        axes.set(xlabel="layer", title=title, yscale="log")
        axes.legend(fontsize=7)

    return draw(name, title, paint)


def loss_surfaces(surfaces: Mapping[str, LossSurface], finding: str) -> Figure:
    """Draw contours of the loss around the weights of each run, on one scale."""
    values = [value for surface in surfaces.values() for row in surface.loss for value in row]
    low, high = max(min(values), 1e-4), max(values)
    levels: list[float] = np.geomspace(low, max(high, low * 1.1) * (1 + 1e-9), _LEVELS).tolist()
    panels = [_surface_panel(number, name, found, levels) for number, (name, found) in enumerate(surfaces.items())]
    reading = (
        "The mean cross-entropy of test images at w + x a + y b: w are the trained weights (+), a and b random "
        "directions whose filters have the norms of the network's own (Li et al. 2018). All panels have one "
        "logarithmic scale."
    )
    rows = [
        (name, f"{x:g}", f"{y:g}", f"{loss:.4g}")
        for name, surface in surfaces.items()
        for y, row in zip(surface.coordinates, surface.loss, strict=True)
        for x, loss in zip(surface.coordinates, row, strict=True)
    ]
    return Figure("loss-surfaces", finding, reading, panels, Table(("run", "x", "y", "loss"), rows))


def _surface_panel(number: int, name: str, surface: LossSurface, levels: Sequence[float]) -> Panel:
    title = f"{display(surface.network)} ({name})"

    def paint(axes: Axes) -> None:
        losses = np.clip(np.array(surface.loss), levels[0], levels[-1])
        places = surface.coordinates
        scale = LogNorm(levels[0], levels[-1])
        filled = axes.contourf(places, places, losses, levels=levels, norm=scale, cmap=_COLOURS)
        axes.contour(places, places, losses, levels=levels, colors="white", linewidths=0.4)
        axes.plot(0, 0, color="white", marker="+")
        axes.set(xlabel="x", ylabel="y", aspect="equal")
        axes.set_title(title, parse_math=False)
        axes.grid(visible=False)
        _add_scale(axes, filled, _ticks(levels))
        axes.figure.axes[-1].set_yticklabels([f"{tick:g}" for tick in _ticks(levels)])

    return draw(f"surface-{number}", f"Loss surface of {title}", paint, _SQUARE)


def _ticks(levels: Sequence[float]) -> list[float]:
    """Return 1, 3, 10, 30, … within the levels."""
    first, last = math.floor(math.log10(levels[0])), math.ceil(math.log10(levels[-1]))
    places = [factor * 10.0**power for power in range(first, last + 1) for factor in (1, 3)]
    return [place for place in places if levels[0] <= place <= levels[-1]]
