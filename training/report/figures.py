"""Figures of single measurements: layer responses, gradients, shortcuts and costs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from training.report.content import Figure, Table
from training.report.drawing import SERIES, Panel, cased, depth_colour, display, draw

_ROOM = 1.35  # of the highest value: space for a legend


def response_curves(responses: Mapping[str, Sequence[float]], finding: str) -> Figure:
    """Draw the paper's figure 7: by layer, and sorted by size. Plain nets dotted, residual ones solid."""

    def painter(*, ordered: bool) -> Callable[[Axes], None]:
        def paint(axes: Axes) -> None:
            for network, values in responses.items():
                heights = sorted(values, reverse=True) if ordered else values
                style = (0, (1, 1.2)) if network.startswith("plain") else "-"
                layers = range(1, len(values) + 1)
                axes.plot(layers, heights, color=depth_colour(network), linestyle=style, label=display(network))
            axes.set(xlabel="layer, by size of response" if ordered else "layer", ylabel="standard deviation")
            axes.set_ylim(0, axes.get_ylim()[1] * _ROOM)
            axes.legend(loc="upper center", ncols=2)

        return paint

    panels = [
        draw("responses", "Standard deviations of layer responses, by layer", painter(ordered=False)),
        draw("responses-sorted", "The same, sorted by size", painter(ordered=True)),
    ]
    reading = (
        "The standard deviation of each 3×3 layer's output after batch norm, before the activation or the addition "
        "(the paper's figure 7), with the final weights of the first seed. Left: by layer. Right: sorted by size."
    )
    rows = [
        (display(network), str(layer), f"{value:.4g}")
        for network, values in responses.items()
        for layer, value in enumerate(values, start=1)
    ]
    return Figure("layer-responses", finding, reading, panels, Table(("network", "layer", "standard deviation"), rows))


def cost_bars(costs: Sequence[Mapping[str, Any]]) -> Panel:
    """Draw the multiply-adds of one image, in billions."""
    names = [f"{cased(str(cost['network']))} {cost['shortcut'] or ''}".strip() for cost in costs]
    billions = [float(str(cost["multiply_adds"])) / 1e9 for cost in costs]

    def paint(axes: Axes) -> None:
        colours = [SERIES[1] if name.startswith("VGG") else SERIES[0] for name in names]
        bars = axes.barh(names, billions, color=colours)
        axes.bar_label(bars, [f"{value:.1f}" for value in billions], padding=3)
        axes.set(xlabel="multiply-adds of one image, billions", xlim=(0, max(billions) * 1.12))
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")

    return draw("cost-bars", "Multiply-adds of one image, in billions", paint)


def gradient_curves(network: str, gradients: Mapping[int, Sequence[float]], limits: tuple[float, float]) -> Panel:
    """Draw the norm of each layer's gradient at the moments at which a run logs it; `limits` are of all networks."""

    def paint(axes: Axes) -> None:
        for colour, (step, norms) in zip(SERIES, gradients.items(), strict=False):
            axes.plot(range(1, len(norms) + 1), norms, color=colour, marker=".", markersize=4, label=f"step {step:,}")
        axes.set(xlabel="layer", ylabel="gradient ÷ weights", title=display(network), yscale="log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(max(limits[0], limits[1] / 1e6) / 1.5, limits[1] * 3)
        axes.legend(loc="upper center", ncols=3)

    return draw(f"gradients-{network}", f"Gradient norms of each layer of {display(network)}", paint)


def gradients(found: Mapping[str, Mapping[int, Sequence[float]]], finding: str) -> Figure:
    """Draw gradients relative to weights by layer, a panel for each network."""
    values = [value for moments in found.values() for norms in moments.values() for value in norms]
    panels = [gradient_curves(network, moments, (min(values), max(values))) for network, moments in found.items()]
    reading = (
        "The norm of the gradient of each convolution's weights, over the norm of these weights at initialization; one "
        "batch at the first, the middle and the last step of the first seed. Vanishing gradients would be smaller in "
        "the first layers than in the last by orders of magnitude."
    )
    rows = [
        (display(network), str(step), str(layer), f"{value:.4g}")
        for network, moments in found.items()
        for step, norms in moments.items()
        for layer, value in enumerate(norms, start=1)
    ]
    header = ("network", "step", "layer", "gradient over weights")
    return Figure("gradients", finding, reading, panels, Table(header, rows))
