"""A panel of the dashboard, and the usual shapes of its queries."""

from dataclasses import dataclass

TARGETS = 'job=~"$job",instance=~"$instance"'
REQUESTS = f'resnet_requests_total{{{TARGETS},method=~"POST|other"}}[$__rate_interval]'

FAILURES = f'resnet_requests_total{{{TARGETS},method=~"POST|other",status=~"5.."}}[$__rate_interval]'
PREDICTIONS = f"resnet_predictions_total{{{TARGETS}}}[$__rate_interval]"


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: its kind, its queries by legend, and its place in the row by width."""

    title: str
    kind: str  # stat, timeseries, heatmap, table, bargauge
    queries: dict[str, str]
    unit: str
    description: str
    width: int = 6
    height: int = 7
    stacked: bool = False
    red_above: float | None = None
    red_below: float | None = None


def total(name: str) -> str:
    """Return a query of the sum of a gauge."""
    return f"sum({name}{{{TARGETS}}})"


def rate(name: str) -> str:
    """Return a query of the increase of a counter a second."""
    return f"sum(rate({name}{{{TARGETS}}}[$__rate_interval]))"


def mean(stage: str) -> str:
    """Return a query of the mean time of one part of an image's way."""
    return f"{rate(f'resnet_{stage}_seconds_sum')} / {rate(f'resnet_{stage}_seconds_count')}"


def buckets(name: str) -> dict[str, str]:
    """Return the query of a heat map."""
    return {"{{le}}": f"sum by (le) (increase({name}_bucket{{{TARGETS}}}[$__rate_interval]))"}


def quantile(q: float, name: str) -> str:
    """Return a query of a quantile over all servers."""
    return f"histogram_quantile({q}, sum by (le) (rate({name}_bucket{{{TARGETS}}}[$__rate_interval])))"
