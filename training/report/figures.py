"""Figures of single measurements: layer responses and costs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

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
