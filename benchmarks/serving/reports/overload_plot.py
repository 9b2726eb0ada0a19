"""The plot of docs/overload.md: `python -m benchmarks.serving.reports.overload_plot RESULTS.json WORKLOAD OUT.svg`.

Goodput and the p99 of 200 responses over the offered load, for each server of the workload. Loads are multiples of
the server's own peak. Points are medians of the rounds.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

FACTORS = (1.2, 2.0, 4.0, 10.0)
_UNMARKED = 4.0  # the factor whose figures have no suffix
_STYLES = {"this service": ("#0b6e4f", "o"), "mosec": ("#c8553d", "s"), "FastAPI x2": ("#4a5a8a", "^")}


def medians(rounds: list[dict[str, float]], figure: str) -> list[float]:
    """Return the median of a figure at each of FACTORS."""
    names = [figure if factor == _UNMARKED else f"{figure}_at_{factor:g}x" for factor in FACTORS]
    return [statistics.median(each[name] for each in rounds) for name in names]


def draw(servers: dict[str, dict[str, Any]], title: str, out: Path) -> None:
    """Write the plot as an SVG file that is the same for the same figures."""
    plt.rcParams |= {"svg.hashsalt": "overload", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}
    figure, (goodput, latency) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for name, measured in sorted(servers.items(), reverse=True):
        colour, marker = _STYLES.get(name, ("#777777", "x"))
        shares = [100 * share for share in medians(measured["rounds"], "goodput_of_cpu_left")]
        goodput.plot(FACTORS, shares, marker=marker, color=colour, label=name)
        latency.plot(FACTORS, medians(measured["rounds"], "admitted_p99"), marker=marker, color=colour, label=name)
    goodput.set(ylabel="goodput, % of the peak that the CPU left allows", ylim=(0, 105))
    latency.set(ylabel="p99 of 200 responses, seconds", yscale="log")
    for axes in (goodput, latency):
        axes.set(xscale="log", xlabel="offered load, multiples of the peak")
        axes.set_xticks(FACTORS, [f"{factor:g}x" for factor in FACTORS])
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    goodput.legend(frameon=False, loc="lower left")
    figure.suptitle(title)
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Draw the workload named on the command line."""
    results, workload, out = sys.argv[1:]
    draw(json.loads(Path(results).read_text())["overload"][workload], workload, Path(out))


if __name__ == "__main__":
    main()
